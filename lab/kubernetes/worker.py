"""A lab node as one of the cluster's: kubelet, kube-proxy, CNI, and what containerd needs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.kubernetes import containerd, kubeconfig, network
from lab.kubernetes.api import PORT
from lab.kubernetes.authority import Authority
from lab.kubernetes.programs import shipping, version
from lab.kubernetes.programs.binaries import Binaries, architecture
from lab.kubernetes.programs.kit import Kit
from lab.kubernetes.programs.names import NODE
from lab.machines.node import LabNode, number
from moorage import commands
from moorage.errors import MoorageError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_FILES = Path(__file__).parent / "files"
_CONFIG = "/etc/containerd/config.toml"
# Unpacked before the configuration is: a tar is in the order of its names.
_RESTART_DUE = "etc/.lab-restart-containerd"
_SYS_RESOURCE = 24  # include/uapi/linux/capability.h
_PROGRAMS = "programs"
_SETUP = "setup"
_SCRIPTS = tuple(f"lab-kubernetes-{what}" for what in ("leave", "supply", "ground", "start"))
# Everything that has to be known of a node, in one question; the answers end with NUL.
_LOOK = (
    "cat /etc/kubernetes/joined 2>/dev/null; printf '\\0'; "
    f"cat {_CONFIG} 2>/dev/null; printf '\\0'; "
    "cat /proc/1/status; printf '\\0'; "
    "containerd config dump 2>/dev/null; printf '\\0'; "
    "systemctl is-active kubelet.service kube-proxy.service 2>/dev/null; true"
)


@dataclass(frozen=True)
class _Seen:
    """What a node says of itself; ``joined`` is the record of its joining, empty for none."""

    joined: dict[str, str]
    config: str
    status: str
    dump: str
    active: bool


@dataclass(frozen=True)
class Plan:
    """What makes a node one of the cluster's: what it becomes, and from what."""

    node: LabNode
    server: str
    routes: str
    binaries: Binaries
    authority: Authority

    @property
    def files(self) -> dict[str, str]:
        """Path -> content, nothing secret: these tell whether a node is as it should be."""
        place = number(f"moorage-{self.node.name}")
        subnet = network.pod_subnet(place)
        options = (
            "--config=/etc/kubernetes/kubelet.json",
            "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
            f"--hostname-override={self.node.name}",
            f"--node-ip={self.node.address}",
            f"--node-labels=moorage.dev/containerd={self.node.containerd_line}",
            *version.kubelet_flags(self.binaries.version),
        )
        files = {
            "etc/kubernetes/kubelet.json": _document(kubelet_config(self.binaries.version)),
            "etc/kubernetes/kubelet.arguments": "".join(f"{option}\n" for option in options),
            "etc/kubernetes/kube-proxy.json": _document(proxy_config(self.node.name)),
            "etc/kubernetes/10-moorage-lab.conflist": network.cni_config(subnet),
            "etc/kubernetes/routes": self.routes,
            "etc/kubernetes/pki/ca.crt": self.authority.pem.decode(),
        }
        for name in ("kubelet.service", "kube-proxy.service"):
            files[f"etc/systemd/system/{name}"] = (_FILES / name).read_text()
        for name in _SCRIPTS:
            files[f"usr/local/sbin/{name}"] = (_FILES / name).read_text()
        return files

    @property
    def record(self) -> dict[str, str]:
        """What a node remembers of its joining; another record means it has to join again."""
        text = json.dumps([self.server, self.files], sort_keys=True)
        setup = hashlib.sha256(text.encode()).hexdigest()[:16]
        return {_PROGRAMS: self.binaries.digest, _SETUP: setup}


def kubelet_config(of: version.Version) -> dict[str, Any]:
    """https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/. Pure."""
    pki = "/etc/kubernetes/pki"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet.key",
        "cgroupDriver": "cgroupfs",
        # Groups for pods and classes would have to be made beside the node's own.
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        # The disk is the machine's; a node that evicts because of it helps nobody, and it must not
        # throw its pause image away.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "imagefs.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        # A node becomes Ready by its second report, ten seconds after the first by default.
        "nodeStatusUpdateFrequency": "1s",
        "nodeStatusReportFrequency": "1m",
        "clusterDomain": "cluster.local",
        **version.kubelet_keys(of),
    }


def proxy_config(node: str) -> dict[str, Any]:
    """https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/. Pure."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": "/etc/kubernetes/kube-proxy.kubeconfig"},
        "mode": "iptables",
        "hostnameOverride": node,
        "clusterCIDR": str(network.PODS),
        # The table of connections is the machine's: left as it is.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": "127.0.0.1:10256",
    }


def supply(client: DockerClient, plan: Plan, kit: Kit) -> bool:
    """Puts everything a node of the cluster needs where it belongs; :func:`start` does the rest.

    Returns False, and does nothing, where the node has joined by this very plan. Raises
    MoorageError with the node's own words.
    """
    from docker.errors import APIError

    container = client.containers.get(plan.node.container_id)
    seen = _look(container, plan.node.name)
    if seen.joined == plan.record and seen.active:
        return False
    # From here on, and until it is done, the node has not joined.
    _run(container, plan.node.name, ["rm", "-f", "/etc/kubernetes/joined"])
    if seen.joined.get(_PROGRAMS) != plan.binaries.digest:
        with shipping.pack_programs(plan.binaries.folder, NODE, into="usr/local/bin") as programs:
            container.put_archive("/", programs)
    files = _public(plan) | _secrets(plan) | kit.packages
    pause = containerd.pause_image(
        kit.busybox, _sandbox_image(seen.dump, plan.node.name), architecture=architecture()
    )
    files["kit/pause.tar"] = shipping.File(pause)
    files["etc/kubernetes/joined.next"] = shipping.File(json.dumps(plan.record).encode())
    edited = seen.config
    if not may_lower_oom_score(seen.status):
        edited = _edited(seen.config, plan.node.name)
    if edited != seen.config:
        # Whoever is stopped in between, the next one sees that the restart is still due.
        files[_RESTART_DUE] = shipping.File(b"")
        files[_CONFIG.lstrip("/")] = shipping.File(edited.encode())
    try:
        container.put_archive("/", shipping.pack(files))
    except APIError as problem:
        raise _failed(plan.node.name, str(problem.explanation or problem)) from None
    _run(container, plan.node.name, ["lab-kubernetes-supply"])
    return True


def start(client: DockerClient, node: LabNode) -> None:
    """Starts the kubelet of a node that was supplied. Not before the API server serves: a kubelet
    that does not find it ends, and begins again only after a while.

    Raises MoorageError with the node's own words.
    """
    _run(client.containers.get(node.container_id), node.name, ["lab-kubernetes-start"])


def leave(container: Container) -> None:
    """Ends the pods of a node whose cluster goes. A node that cannot is going as well."""
    from docker.errors import APIError

    try:
        container.exec_run(["sh", "-c", "command -v lab-kubernetes-leave && lab-kubernetes-leave"])
    except APIError:
        return


def last_words(client: DockerClient, node: LabNode) -> str:
    """What the node's kubelet complained of last."""
    container = client.containers.get(node.container_id)
    argv = ["journalctl", "-u", "kubelet.service", "-n", "200", "--no-pager", "-o", "cat"]
    answer: Any = container.exec_run(argv)
    output: bytes = answer.output or b""
    # klog: E for errors, F for fatal ones.
    telling = [line for line in output.splitlines() if line[:1] in (b"E", b"F")]
    return commands.last_words(b"\n".join(telling) or output, lines=3)


def may_lower_oom_score(status: str) -> bool:
    """Whether /proc/PID/status has SYS_RESOURCE in its bounding set. Pure."""
    for line in status.splitlines():
        if line.startswith("CapBnd:"):
            return bool(int(line.split()[1], 16) >> _SYS_RESOURCE & 1)
    return False


def _secrets(plan: Plan) -> dict[str, shipping.File]:
    authority, node = plan.authority, plan.node
    # Node authorization goes by this name and this group:
    # https://kubernetes.io/docs/reference/access-authn-authz/node/
    users = {
        "kubelet": (f"system:node:{node.name}", ("system:nodes",)),
        "kube-proxy": ("system:kube-proxy", ()),
    }
    files: dict[str, bytes] = {}
    for name, (user, groups) in users.items():
        pair = authority.client(user, *groups)
        text = kubeconfig.render(server=plan.server, ca=authority.pem, user=user, pair=pair)
        files[f"etc/kubernetes/{name}.kubeconfig"] = text.encode()
    serving = authority.server([node.name, node.address])
    files["etc/kubernetes/pki/kubelet.crt"] = serving.certificate
    files["etc/kubernetes/pki/kubelet.key"] = serving.key
    return {path: shipping.File(content, 0o600) for path, content in files.items()}


def _public(plan: Plan) -> dict[str, shipping.File]:
    return {
        path: shipping.File(text.encode(), 0o755 if path.startswith("usr/") else 0o644)
        for path, text in plan.files.items()
    }


def _look(container: Container, name: str) -> _Seen:
    output = _run(container, name, ["sh", "-c", _LOOK])
    joined, config, status, dump, active = output.split("\0")
    return _Seen(_record(joined), config, status, dump, active.split() == ["active", "active"])


def _record(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
        return {str(key): str(value) for key, value in found.items()}
    except (ValueError, AttributeError):
        return {}


def _sandbox_image(dump: str, name: str) -> str:
    try:
        return containerd.sandbox_image(dump)
    except ValueError as problem:
        raise _failed(name, f"containerd config dump: {problem}") from None


def _edited(config: str, name: str) -> str:
    try:
        if "\ufffd" in config:
            raise ValueError("it is not UTF-8")
        return containerd.restrict_oom(config)
    except ValueError as problem:
        raise _failed(name, f"{_CONFIG} is not TOML: {problem}") from None


def _run(
    container: Container,
    name: str,
    argv: list[str],
) -> str:
    answer: Any = container.exec_run(argv)
    output: bytes = answer.output or b""
    if answer.exit_code != 0:
        raise _failed(name, commands.last_words(output))
    return output.decode(errors="replace")


def _failed(name: str, cause: str) -> MoorageError:
    return MoorageError(
        "join-failed",
        f"{name} could not be made a node of the cluster",
        cause=cause,
        cure=f"inv lab.ssh {name} to look at it; inv lab.down && inv lab.up --kubernetes makes it"
        " again",
        host=name,
    )


def _document(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def server(address: str) -> str:
    """The API server as nodes reach it."""
    return f"https://{address}:{PORT}"
