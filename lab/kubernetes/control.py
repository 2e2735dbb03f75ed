"""The control plane's container: etcd, API server, controller manager and scheduler in one."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.kubernetes import kubeconfig, network
from lab.kubernetes.api import PORT, Api
from lab.kubernetes.authority import Authority, Pair
from lab.kubernetes.programs import kit, shipping, version
from lab.kubernetes.programs.binaries import Binaries
from lab.kubernetes.programs.names import CONTROL, ETCD, WELCOME
from lab.machines import containers
from moorage import commands
from moorage.docker import engine
from moorage.errors import MoorageError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from moorage.output import Progress
    from moorage.settings import Settings

DIGEST = "io.moorage.digest"
_READY_SECONDS = 90.0
_PKI = "/etc/kubernetes/pki"
# Alone in the container's own network, and nobody else may log in to the container.
_ETCD = "http://127.0.0.1:2379"
_NAMES = (
    kubeconfig.SERVER_NAME,
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    str(network.API_SERVICE),
)


@dataclass(frozen=True)
class Control:
    """The control plane that runs; ``address`` is its container's, an IPv4 address."""

    container: Container
    address: str
    changed: bool


def arguments(binaries_version: version.Version) -> dict[str, tuple[str, ...]]:
    """Each program's options. Nothing secret is among them, only where it is. Pure.

    The API server's address is added where it is known: in the container.
    """
    loopback = "--bind-address=127.0.0.1"
    return {
        "etcd": (
            "--data-dir=/var/lib/etcd/cluster",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ),
        "kube-apiserver": (
            f"--etcd-servers={_ETCD}",
            f"--secure-port={PORT}",
            f"--tls-cert-file={_PKI}/apiserver.crt",
            f"--tls-private-key-file={_PKI}/apiserver.key",
            f"--client-ca-file={_PKI}/ca.crt",
            f"--kubelet-certificate-authority={_PKI}/ca.crt",
            f"--kubelet-client-certificate={_PKI}/kubelet-client.crt",
            f"--kubelet-client-key={_PKI}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={network.SERVICES}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={_PKI}/service-accounts.pub",
            f"--service-account-signing-key-file={_PKI}/service-accounts.key",
            "--profiling=false",
        ),
        "kube-controller-manager": (
            *_as_client("controller-manager"),
            *version.controller_flags(binaries_version),
            loopback,
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={_PKI}/service-accounts.key",
            f"--root-ca-file={_PKI}/ca.crt",
            "--profiling=false",
        ),
        "kube-scheduler": (
            *_as_client("scheduler"),
            *version.scheduler_flags(binaries_version),
            loopback,
            "--leader-elect=false",
            "--profiling=false",
        ),
    }


def ensure(
    settings: Settings,
    client: DockerClient,
    progress: Progress,
    binaries: Binaries,
    authority: Authority,
    routes: str,
) -> Control:
    """The control plane, made where there is none, or another one than these parameters make.

    ``routes``: see :func:`network.routes`. A new one begins with an empty cluster. Raises Refused
    where its name is taken, MoorageError where the engine does not start it.
    """
    image = kit.ensure(settings, client, progress)
    flags = arguments(binaries.version)
    parts = [image, binaries.digest, authority.pem.decode(), flags, _NAMES]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    found = find(settings, client)
    changed = True
    if found is not None and found.labels.get(DIGEST) == digest and _was_filled(found):
        changed = found.status != "running"
    else:
        if found is not None:
            containers.remove(found)
        with progress("making the cluster's control plane"):
            found = _make(settings, client, image, digest, binaries, authority, flags)
    found.put_archive("/", shipping.pack({"etc/kubernetes/routes": shipping.File(routes.encode())}))
    if found.status == "running":
        found.exec_run(["sh", "-c", _FOLLOW_ROUTES])
    else:
        containers.start(found, "the cluster's control plane")
    found.reload()
    return Control(found, containers.node_of(found).address, changed)


def container_name(settings: Settings) -> str:
    """``moorage-lab-control``: it goes with the nodes' names, of which two labs need two."""
    return f"moorage-{settings.lab.prefix}-control"


def find(settings: Settings, client: DockerClient) -> Container | None:
    """Our container. Raises Refused if one of that name is not this project's."""
    from docker.errors import NotFound

    name = container_name(settings)
    try:
        found = client.containers.get(name)
    except NotFound:
        return None
    engine.refuse_stranger(settings, found, "lab.down", "lab.prefix")
    return found


def wait(control: Control, api: Api, *, seconds: float = _READY_SECONDS) -> None:
    """Until the API server serves. Raises MoorageError with the last words of what died."""
    until = time.monotonic() + seconds
    while True:
        why = api.ready()
        if not why:
            return
        control.container.reload()
        if control.container.status != "running":
            words = commands.last_words(control.container.logs(tail=20), lines=6)
            raise _not_ready(str(control.container.name), words)
        if time.monotonic() > until:
            raise _not_ready(
                str(control.container.name), f"it does not serve after {seconds:.0f} s: {why}"
            )
        time.sleep(0.1)


def _make(
    settings: Settings,
    client: DockerClient,
    image: str,
    digest: str,
    binaries: Binaries,
    authority: Authority,
    flags: dict[str, tuple[str, ...]],
) -> Container:
    from docker.errors import APIError
    from docker.types import LogConfig

    made = client.containers.create(
        image,
        name=container_name(settings),
        hostname=kubeconfig.SERVER_NAME,
        labels={**engine.labels(settings, kit.PART), DIGEST: digest},
        cap_add=["NET_ADMIN"],  # routes to the pods
        log_config=LogConfig(type="json-file", config={"max-size": "1m"}),
    )
    try:
        names = [*CONTROL, *(n for n in WELCOME if (binaries.folder / n).exists())]
        with shipping.pack_programs(binaries.folder, names, into="usr/local/bin") as programs:
            made.put_archive("/", programs)
        if binaries.own_etcd:
            with shipping.pack_programs(binaries.folder, [ETCD], into="usr/local/bin") as etcd:
                made.put_archive("/", etcd)
        # Last: who finds the keys in it finds all of it.
        made.put_archive("/", shipping.pack(_files(authority, flags)))
    except APIError as problem:
        made.remove(force=True, v=True)
        raise MoorageError(
            "engine-refused",
            "the cluster's control plane could not be made",
            cause=str(problem.explanation or problem),
            cure="is the engine's disk full? docker system df",
        ) from None
    return made


def _was_filled(container: Container) -> bool:
    """Whether it was made to its end: its keys are the last thing that is put into it."""
    from docker.errors import NotFound

    try:
        container.get_archive(f"{_PKI}/service-accounts.key")
    except NotFound:
        return False
    return True


def _files(authority: Authority, flags: dict[str, tuple[str, ...]]) -> dict[str, shipping.File]:
    clients = {
        "controller-manager": "system:kube-controller-manager",
        "scheduler": "system:kube-scheduler",
    }
    files = {
        f"etc/kubernetes/{name}.arguments": "".join(f"{option}\n" for option in options).encode()
        for name, options in flags.items()
    }
    for name, user in clients.items():
        text = kubeconfig.render(
            server=f"https://127.0.0.1:{PORT}",
            ca=authority.pem,
            user=user,
            pair=authority.client(user),
        )
        files[f"etc/kubernetes/{name}.kubeconfig"] = text.encode()
    pairs: dict[str, Pair] = {
        "apiserver": authority.server(_NAMES),
        "kubelet-client": authority.client("kube-apiserver", "system:masters"),
    }
    pki = _PKI.lstrip("/")
    for name, pair in pairs.items():
        files[f"{pki}/{name}.crt"] = pair.certificate
        files[f"{pki}/{name}.key"] = pair.key
    files[f"{pki}/ca.crt"] = authority.pem
    # The API server reads no public key out of a PKCS #8 file.
    files[f"{pki}/service-accounts.pub"] = authority.service_public_key
    files[f"{pki}/service-accounts.key"] = authority.service_key
    return {path: shipping.File(content, 0o600) for path, content in files.items()}


def _as_client(name: str) -> tuple[str, ...]:
    path = f"/etc/kubernetes/{name}.kubeconfig"
    return (
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
    )


_FOLLOW_ROUTES = (
    'while read -r subnet gateway; do ip route replace "$subnet" via "$gateway"; done '
    "</etc/kubernetes/routes"
)


def _not_ready(name: str, cause: str) -> MoorageError:
    return MoorageError(
        "control-plane-not-ready",
        "the cluster's control plane does not get ready",
        cause=cause,
        cure=f"docker logs {name}; docker exec {name} tail /var/log/kubernetes/*.log; "
        "inv lab.down && inv lab.up --kubernetes begins again",
    )
