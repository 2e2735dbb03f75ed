"""Trust on nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.fleet.operation import Reach
    from moorage.fleet.report import FleetReport

_REACH = {
    "hosts": "nodes, as a,user@b,c:2222,[fd00::3] (else nodes.hosts, else the lab's)",
    "learn_host_keys": "show unknown host keys, ask, and add them to known_hosts",
    "ask_sudo_password": "ask for sudo's password (without a terminal: a line on stdin)",
}
_CLUSTER = {
    "from_cluster": "the nodes of the Kubernetes cluster, as its API server lists them",
    "selector": "with --from-cluster: only nodes with these labels, as role=edge",
    "kubeconfig": "with --from-cluster: as for k8s.nodes",
    "context": "with --from-cluster: as for k8s.nodes",
}
_IMAGE = {"image": "the image whose pull proves it (else the demo image)"}
_CHANGE = {
    "dry_run": "print every change as a diff and change nothing",
    "no_restart": "prepare everything; say which restart waits",
}


@dataclass(frozen=True)
class _Cluster:
    """``--from-cluster`` and what goes with it."""

    wanted: bool
    selector: str
    kubeconfig: str
    context: str


@command(
    help={
        **_REACH,
        **_CLUSTER,
        **_IMAGE,
        **_CHANGE,
        "no_verify": "set trust up without the pull that proves it",
        "replace": "replace a hosts entry that gives the registry's name another address",
    }
)
def trust(
    run: Run,
    hosts: str | None = None,
    from_cluster: bool = False,
    selector: str = "",
    kubeconfig: str = "",
    context: str = "",
    dry_run: bool = False,
    image: str | None = None,
    no_verify: bool = False,
    no_restart: bool = False,
    replace: bool = False,
    learn_host_keys: bool = False,
    ask_sudo_password: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Make nodes trust the registry over SSH, and prove it by a pull.

    Example: inv nodes.trust --hosts=node1,admin@node2 --learn-host-keys
    """
    from moorage import fleet

    del yes  # the voice knows it already
    report = fleet.trust(
        run.settings,
        run.ui,
        _hosts(run, hosts, _Cluster(from_cluster, selector, kubeconfig, context)),
        dry_run=dry_run,
        image=image,
        verify=not no_verify,
        restart=not no_restart,
        replace=replace,
        reach=_reach(run, learn_host_keys, ask_sudo_password),
    )
    return _told(run, report)


@command(help={**_REACH, **_CLUSTER, **_CHANGE})
def untrust(
    run: Run,
    hosts: str | None = None,
    from_cluster: bool = False,
    selector: str = "",
    kubeconfig: str = "",
    context: str = "",
    dry_run: bool = False,
    no_restart: bool = False,
    learn_host_keys: bool = False,
    ask_sudo_password: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Take the trust away from nodes again; their files are as they were before.

    Example: inv nodes.untrust --hosts=node1,node2 --dry-run
    """
    from moorage import fleet

    del yes
    report = fleet.untrust(
        run.settings,
        run.ui,
        _hosts(run, hosts, _Cluster(from_cluster, selector, kubeconfig, context)),
        dry_run=dry_run,
        restart=not no_restart,
        reach=_reach(run, learn_host_keys, ask_sudo_password),
    )
    return _told(run, report)


@command(help={**_REACH, **_CLUSTER, **_IMAGE})
def verify(
    run: Run,
    hosts: str | None = None,
    from_cluster: bool = False,
    selector: str = "",
    kubeconfig: str = "",
    context: str = "",
    image: str | None = None,
    learn_host_keys: bool = False,
    ask_sudo_password: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Prove that nodes trust the registry: TLS, CRI and a pull; exit code 1 where one does not.

    Example: inv nodes.verify --hosts=node1 --image=my.registry.io/serve_hostname:0.0.1
    """
    from moorage import fleet

    del yes
    report = fleet.verify(
        run.settings,
        run.ui,
        _hosts(run, hosts, _Cluster(from_cluster, selector, kubeconfig, context)),
        image=image,
        reach=_reach(run, learn_host_keys, ask_sudo_password),
    )
    return _told(run, report)


@command(help={**_REACH, **_CLUSTER})
def status(
    run: Run,
    hosts: str | None = None,
    from_cluster: bool = False,
    selector: str = "",
    kubeconfig: str = "",
    context: str = "",
    learn_host_keys: bool = False,
    ask_sudo_password: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Say what nodes trust by our doing, and whether our files there are still as we left them.

    Example: inv nodes.status --hosts=node1,node2
    """
    from moorage import fleet

    del yes
    report = fleet.status(
        run.settings,
        run.ui,
        _hosts(run, hosts, _Cluster(from_cluster, selector, kubeconfig, context)),
        reach=_reach(run, learn_host_keys, ask_sudo_password),
    )
    return _told(run, report, states=True)


@command(
    positional=["image"], help={"image": "an image of this machine's engine", **_REACH, **_CLUSTER}
)
def preload(
    run: Run,
    image: str,
    hosts: str | None = None,
    from_cluster: bool = False,
    selector: str = "",
    kubeconfig: str = "",
    context: str = "",
    learn_host_keys: bool = False,
    ask_sudo_password: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Load an image into the nodes' runtimes over SSH, where it cannot be pulled.

    Example: inv nodes.preload python:3.13-slim --from-cluster
    """
    from moorage.fleet import preload as loading
    from moorage.fleet.report import failures

    del yes
    report = loading.preload(
        run.settings,
        run.ui,
        _hosts(run, hosts, _Cluster(from_cluster, selector, kubeconfig, context)),
        image,
        reach=_reach(run, learn_host_keys, ask_sudo_password),
    )
    run.ui.table(
        ["node", "status", "runtimes"],
        [[one.host, one.status, report.runtimes.get(one.host, "")] for one in report.hosts],
    )
    for line in failures(report.hosts):
        run.ui.show(line)
    return _document(run, report)


def _hosts(run: Run, hosts: str | None, cluster: _Cluster) -> tuple[str, ...]:
    """The hosts that are meant: those named, the cluster's, the settings', or the lab's."""
    from moorage import fleet
    from moorage.errors import Refused

    if not cluster.wanted:
        if cluster.selector or cluster.kubeconfig or cluster.context:
            raise Refused(
                "wrong-use",
                "--selector, --kubeconfig and --context go with --from-cluster",
                cause="without it, nodes come from --hosts, the settings or the lab",
                cure="add --from-cluster, or name the nodes: --hosts=node1,node2",
            )
        return fleet.choose_hosts(run.settings, hosts)
    if hosts is not None:
        raise Refused(
            "wrong-use",
            "--hosts and --from-cluster exclude each other",
            cause="each says which nodes are meant",
            cure="leave one of them out; --selector narrows --from-cluster down",
        )
    from moorage.cluster import access, nodes

    api = access.connect(
        run.settings, run.ui, kubeconfig=cluster.kubeconfig, context=cluster.context
    )
    found = nodes.linux(nodes.addresses(api, cluster.selector))
    run.ui.note(nodes.described(found))
    return tuple(nodes.hosts_by_node(run.settings, found).values())


def _reach(run: Run, learn_host_keys: bool, ask_sudo_password: bool) -> Reach:
    from moorage.fleet.operation import Reach

    password = run.ui.ask_secret("sudo password on the nodes") if ask_sudo_password else None
    return Reach(learn_host_keys=learn_host_keys, sudo_password=password)


def _told(run: Run, report: FleetReport, *, states: bool = False) -> dict[str, Any]:
    from moorage.fleet.report import show, show_states

    (show_states if states else show)(run.ui, report)
    return _document(run, report)


def _document(run: Run, report: FleetReport) -> dict[str, Any]:
    document = report.to_json()
    if report.interrupted:
        run.ui.document(document)
        report.stop_if_interrupted()
    return document


namespace = Collection("nodes", trust, untrust, verify, status, preload)
