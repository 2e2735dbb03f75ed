"""The cluster as a whole: up, down, and what of it is missing."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.kubernetes import authority, control, network, worker
from lab.kubernetes import kubeconfig as kubeconfigs
from lab.kubernetes.api import Api
from lab.kubernetes.programs import binaries, kit, version
from lab.machines import containers
from lab.machines.node import LabNode, number
from moorage.actions import Action
from moorage.docker import engine
from moorage.errors import MoorageError, Refused
from moorage.files import private_folder, write_atomically
from moorage.mix import parse_mix
from moorage.output import Note, Progress, Update
from moorage.registry import handed

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.settings import Settings
    from moorage.ui import UI

_READY_SECONDS = 90.0
_AT_ONCE = 4
_ADMIN = "moorage-lab-admin"


@dataclass(frozen=True)
class Cluster:
    """A cluster that serves. ``kubeconfig`` is its administrator's; ``nodes`` are Ready.

    ``kubectl`` is one of the cluster's own version; None if it came without.
    """

    kubeconfig: Path
    nodes: tuple[str, ...]
    version: str
    changed: bool = False
    kubectl: Path | None = None

    @property
    def command(self) -> str:
        """How to type kubectl for this cluster."""
        return shlex.join((str(self.kubectl or "kubectl"), "--kubeconfig", str(self.kubeconfig)))

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "kubeconfig": str(self.kubeconfig),
            "kubectl": str(self.kubectl or ""),
            "nodes": list(self.nodes),
        }


def kubeconfig_path(settings: Settings) -> Path:
    """The administrator's kubeconfig; there while the cluster is up."""
    return _folder(settings) / "admin.kubeconfig"


def pending(settings: Settings, nodes: str | None = None) -> list[Action]:
    """What :func:`up` would do to this machine, and whether there is a cluster to make.

    ``nodes``: the mix of :func:`lab.up`. Raises Refused if none of them can be in a
    cluster, and for a folder of programs that is of no use.
    """
    spoken = version.lines(binaries.planned_version(settings))
    mix = parse_mix(settings.lab.nodes if nodes is None else nodes)
    if not any(line.name in spoken for line in mix):
        raise _no_members(binaries.planned_version(settings))
    return [*binaries.pending(settings), *pending_cluster(settings)]


def pending_cluster(settings: Settings) -> list[Action]:
    """What :func:`up` would do once it has the programs and nodes; nothing if a cluster runs."""
    if kubeconfig_path(settings).exists() and engine.answers(settings):
        client = engine.connect(settings)
        try:
            found = control.find(settings, client)
        finally:
            client.close()
        if found is not None and found.status == "running":
            return []
    return [Action("make the lab's nodes a Kubernetes cluster")]


def fetch(settings: Settings, client: DockerClient, ui: UI) -> None:
    """Gets the programs, before any node is made: where they cannot be had, nothing is.

    Raises as :func:`up` does.
    """
    if binaries.pending(settings):
        binaries.ensure(settings, client, ui)


def up(settings: Settings, client: DockerClient, ui: UI, nodes: Sequence[LabNode]) -> Cluster:
    """Makes ``nodes`` (that run) a cluster and waits until all of it is ready.

    What is right is left alone. Nodes whose containerd the kubelet cannot speak to are left out,
    with a word. Raises Refused if none is left, MoorageError for what does not get ready.
    """
    programs = binaries.ensure(settings, client, ui)
    members = _members(nodes, programs.version)
    ui.present(_left_out(nodes, members, programs.version))
    trust = authority.ensure(_folder(settings) / "authority.pem")
    subnets = {node.address: network.pod_subnet(number(f"moorage-{node.name}")) for node in members}
    plane = control.ensure(settings, client, ui.progress, programs, trust, network.routes(subnets))
    identity = _write_admin(settings, trust, plane.address)
    api = Api(plane.address, trust.pem, identity)
    plans = [
        worker.Plan(
            node=node,
            server=worker.server(plane.address),
            routes=network.routes(subnets, own=node.address),
            binaries=programs,
            authority=trust,
        )
        for node in members
    ]
    # The API server comes up meanwhile.
    names = ", ".join(node.name for node in members)
    title = f"making {names} nodes of" if plane.changed else f"looking at {names} in"
    with ui.progress(f"{title} the cluster") as update:
        new = _supply(client, plane, plans, update)
    with ui.progress(f"waiting for the API server at {worker.server(plane.address)}"):
        control.wait(plane, api)
    unknown = [node for node in _unregistered(api, members) if node not in new]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda node: worker.start(client, node), [*new, *unknown]))
    with ui.progress("waiting for the nodes to be Ready") as update:
        _wait_ready(client, api, members, update)
    gone = _forget_others(api, members)
    kubectl = programs.folder / "kubectl"
    return Cluster(
        kubeconfig=kubeconfig_path(settings),
        nodes=tuple(node.name for node in members),
        version=str(programs.version),
        changed=plane.changed or bool(new or unknown) or gone,
        kubectl=kubectl if kubectl.exists() else None,
    )


def down(
    settings: Settings, client: DockerClient, progress: Progress, *, images: bool = False
) -> bool:
    """Removes the control plane, an unfinished build, and the keys. The nodes are the lab's.

    On nodes that run, pods are ended first: their control groups would outlast them. With
    ``images``, what it is made from goes too; the cache of programs stays, it is the user's.
    Returns whether there was anything.
    """
    mine = engine.label_filter(settings, kit.PART)
    found = client.containers.list(all=True, filters=mine, ignore_removed=True)
    there = _folder(settings).exists()
    if found or there:
        with progress("removing the cluster's pods and control plane"):
            nodes = client.containers.list(
                filters=engine.label_filter(settings, "lab"), ignore_removed=True
            )
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(worker.leave, nodes))
            for container in found:
                containers.remove(container)
    _take_back_logins(settings)
    shutil.rmtree(_folder(settings), ignore_errors=True)
    gone = kit.forget(settings, client) if images else False
    return bool(found) or there or gone


def _take_back_logins(settings: Settings) -> None:
    """The logins that the cluster got are gone with it; else a rotation would wait for it."""
    if where := server(settings):
        with contextlib.suppress(OSError, Refused):
            handed.forget(settings, where)


def server(settings: Settings) -> str:
    """The URL of the cluster's API server, by its kubeconfig; "" if there is none."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        document = json.loads(kubeconfig_path(settings).read_bytes())
        return str(document["clusters"][0]["cluster"]["server"])
    return ""


def _members(nodes: Sequence[LabNode], programs: version.Version) -> list[LabNode]:
    lines = version.lines(programs)
    members = [node for node in nodes if node.containerd_line in lines]
    if not members:
        raise _no_members(programs)
    return members


def _left_out(
    nodes: Sequence[LabNode], members: Sequence[LabNode], programs: version.Version
) -> list[Note]:
    spoken = ", ".join(version.lines(programs))
    return [
        Note(
            f"{node.name} is left out of the cluster: a kubelet {programs} speaks to "
            f"containerd {spoken}, and it has {node.containerd_line}"
        )
        for node in nodes
        if node not in members
    ]


def _no_members(programs: version.Version) -> Refused:
    lines = version.lines(programs)
    return Refused(
        "no-cluster-nodes",
        f"no node of the lab can be in a cluster of Kubernetes {programs}",
        cause=f"its kubelet speaks to containerd {', '.join(lines)} only",
        cure=f"inv lab.up --kubernetes --nodes={','.join(lines)}",
    )


def _folder(settings: Settings) -> Path:
    return settings.state / "lab" / "kubernetes"


def _write_admin(settings: Settings, trust: authority.Authority, address: str) -> Path:
    """Writes the administrator's kubeconfig and identity, unless they are there and right."""
    folder = private_folder(_folder(settings))
    identity, config = folder / "admin.pem", kubeconfig_path(settings)
    issued = f"{trust.pem.decode()}{worker.server(address)}"
    stamp = folder / "admin.for"
    if config.exists() and identity.exists() and stamp.exists() and stamp.read_text() == issued:
        return identity
    pair = trust.client(_ADMIN, "system:masters")
    text = kubeconfigs.render(server=worker.server(address), ca=trust.pem, user=_ADMIN, pair=pair)
    write_atomically(identity, pair.certificate + pair.key)
    write_atomically(config, text.encode())
    write_atomically(stamp, issued.encode())
    return identity


def _supply(
    client: DockerClient, plane: control.Control, plans: Sequence[worker.Plan], update: Update
) -> list[LabNode]:
    """Makes nodes ready to join. Returns those that were not."""
    supplies = kit.for_nodes(plane.container)
    new: list[LabNode] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = pool.map(lambda plan: worker.supply(client, plan, supplies), plans)
        for done, (plan, needed) in enumerate(zip(plans, answers, strict=True), start=1):
            new += [plan.node] if needed else []
            update(done=done, total=len(plans))
    return new


def _unregistered(api: Api, members: Sequence[LabNode]) -> list[LabNode]:
    """Nodes that the API server does not know.

    A kubelet registers its node when it starts, and only then: a control plane that was made anew
    beside kubelets that run never hears of them.
    """
    try:
        known = api.nodes()
    except OSError:  # told where nodes are waited for
        return []
    return [node for node in members if node.name not in known]


def _wait_ready(
    client: DockerClient,
    api: Api,
    members: Sequence[LabNode],
    update: Update,
    *,
    seconds: float = _READY_SECONDS,
) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            known = api.nodes()
        except OSError:
            known = {}
        late = {
            node: known.get(node.name, "it has not registered")
            for node in members
            if known.get(node.name, "-")
        }
        update(done=len(members) - len(late), total=len(members))
        if not late:
            return
        if time.monotonic() > until:
            node, why = next(iter(late.items()))
            raise MoorageError(
                "node-not-ready",
                f"{node.name} does not get Ready",
                cause=f"{why}\n{worker.last_words(client, node)}",
                cure=f"inv lab.ssh {node.name}, then: journalctl -u kubelet",
                host=node.name,
            )
        time.sleep(0.2)


def _forget_others(api: Api, members: Sequence[LabNode]) -> bool:
    """Nodes that are no longer of the lab; their pods go with them."""
    try:
        others = set(api.nodes()) - {node.name for node in members}
        for name in others:
            api.delete_node(name)
    except OSError:  # the next run forgets them
        return False
    return bool(others)
