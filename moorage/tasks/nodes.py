"""Trust on nodes."""

from __future__ import annotations

from typing import Any

from invoke.collection import Collection

from moorage.configuration import parsing
from moorage.tasks.command import Run, command
from moorage.tasks.on_nodes import Nodes, on_nodes

_IMAGE = {"image": "the image whose pull proves it (else the demo image)"}
_CHANGE = {
    "dry_run": "print every change as a diff and change nothing",
    "no_restart": "prepare everything; say which restart waits",
}


@on_nodes(
    help={
        **_IMAGE,
        **_CHANGE,
        "no_verify": "set trust up without the pull that proves it (exit code 3: not proven)",
        "replace": "replace a hosts entry that gives the registry's name another address",
        "parts": "only these, as hosts,docker,containerd (else nodes.parts, else all there are)",
        "mirror": "registries whose images are asked of ours first, as docker.io,quay.io",
        "no_fallback": "with --mirror: never ask those registries themselves",
        "insecure": "http: the registry has no TLS, and nodes are to ask it without",
        "system_store": "the nodes' own trust stores too: every program there trusts the CA then",
        "once": "leave no agent behind (else it stays and puts back what drifts)",
        "fix_proxy": "add the registry to NO_PROXY of runtimes that ask a proxy for it",
    },
    in_waves=True,
)
def trust(
    run: Run,
    nodes: Nodes,
    dry_run: bool = False,
    image: str | None = None,
    no_verify: bool = False,
    no_restart: bool = False,
    replace: bool = False,
    parts: str | None = None,
    mirror: str | None = None,
    no_fallback: bool = False,
    insecure: str | None = None,
    system_store: bool = False,
    fix_proxy: bool = False,
    once: bool = False,
) -> dict[str, Any]:
    """Make nodes trust the registry over SSH, and prove it by a pull.

    Example: inv nodes.trust --hosts=node1,admin@node2 --learn-host-keys
    Example: inv nodes.trust --inventory=hosts.ini --limit=@web --dry-run
    """
    settings = parsing.with_nodes(
        run.settings,
        parts=parts,
        mirrors=mirror,
        mirror_fallback=False if no_fallback else None,
        insecure=insecure,
        system_store=system_store or None,
        fix_proxy=fix_proxy or None,
        resident=False if once else None,
    )
    return nodes.do(
        settings=settings,
        dry_run=dry_run,
        image=image,
        verify=not no_verify,
        restart=not no_restart,
        replace=replace,
    )


@on_nodes(help=_CHANGE, in_waves=True)
def untrust(
    run: Run,
    nodes: Nodes,
    dry_run: bool = False,
    no_restart: bool = False,
) -> dict[str, Any]:
    """Take the trust away from nodes again; their files are as they were before.

    Example: inv nodes.untrust --hosts=node1,node2 --dry-run
    Example: inv nodes.untrust --hosts=node[01-16].lan --max-failures=1
    """
    return nodes.do(dry_run=dry_run, restart=not no_restart)


@on_nodes(help=_IMAGE)
def verify(run: Run, nodes: Nodes, image: str | None = None) -> dict[str, Any]:
    """Prove that nodes trust the registry: TLS, CRI and a pull; exit code 1 if one does not.

    Exit code 3 if a node is well and something there stays unproven: the table says what, and why.
    Example: inv nodes.verify --hosts=node1 --image=my.registry.io/serve_hostname:0.0.1
    Example: inv nodes.verify --from-cluster --json
    """
    return nodes.do(image=image)


@on_nodes()
def status(run: Run, nodes: Nodes) -> dict[str, Any]:
    """Say how nodes stand: trust, drift, versions, certificate ends, last apply and pull.

    Exit code 1 where a node could not be asked, a file of ours is not as it was left, drift cannot
    be put back, or an operation was cut off; what waits (a restart, an upgrade) is not a failure.
    Example: inv nodes.status --hosts=node1,node2
    Example: inv nodes.status --hosts=@web --report=build/status
    """
    from functools import partial

    from moorage.fleet.state import table

    if run.ui.as_json:  # thousands of rows that nobody would see
        return nodes.do(show=lambda _report: ())
    return nodes.do(show=partial(table.parts, own=table.ours(run.settings)))


@on_nodes(
    help={"every": "seconds between two looks at a node, 1 to 3600 (above 9 s a handshake each)"}
)
def watch(run: Run, nodes: Nodes, every: str = "5") -> dict[str, Any]:
    """Follow nodes until Ctrl-C: a live board, or a line a change in a pipe; ends with exit code 0.

    Nodes without a resident agent are asked over SSH, every 15 seconds at most.
    Example: inv nodes.watch --hosts=node1,node2 --every=10
    Example: inv nodes.watch --from-cluster
    """
    from moorage.fleet import watch as watching

    seconds = watching.seconds(every)
    followed = watching.Watch(run.settings, run.ui, nodes.chosen(), nodes.reach(), seconds)
    return followed.run()


@on_nodes()
def diff(run: Run, nodes: Nodes) -> dict[str, Any]:
    """Say what differs from the plan, file by file, and change nothing; exit code 1 where it does.

    Example: inv nodes.diff --hosts=node1,node2
    Example: inv nodes.diff --hosts=node1 --json
    """
    return nodes.do()


@on_nodes(help={"host": "the same as --hosts, usually for one node"})
def explain(run: Run, nodes: Nodes, host: str | None = None) -> dict[str, Any]:
    """Say what was found on nodes, which strategies are taken there, which are not, and why.

    Example: inv nodes.explain --hosts=node1
    Example: inv nodes.explain --host=node1 --json
    """
    from moorage.fleet.report import finding_parts

    return nodes.or_at(host).do(show=finding_parts)


@on_nodes()
def history(run: Run, nodes: Nodes) -> dict[str, Any]:
    """Say what was done on nodes and when, by whom, and what has been taken back since.

    Example: inv nodes.history --hosts=node1
    Example: inv nodes.history --hosts=node1 --json
    """
    from moorage.fleet.report import history_parts

    return nodes.do(show=history_parts)


@on_nodes()
def images(run: Run, nodes: Nodes) -> dict[str, Any]:
    """List the images that the nodes' runtimes have, and name each runtime that cannot be asked.

    Example: inv nodes.images --hosts=node1,node2
    Example: inv nodes.images --hosts=node1 --json
    """
    from moorage.fleet.report import image_parts

    return nodes.do(show=image_parts)


@on_nodes(help=_CHANGE, in_waves=True)
def undo(
    run: Run,
    nodes: Nodes,
    dry_run: bool = False,
    no_restart: bool = False,
) -> dict[str, Any]:
    """Take back the last thing nodes.trust did on nodes for this registry; what others wrote stays.

    Example: inv nodes.undo --hosts=node1 --dry-run
    Example: inv nodes.undo --hosts=node[01-16].lan --canary=1
    """
    return nodes.do(dry_run=dry_run, restart=not no_restart)


@on_nodes()
def recover(run: Run, nodes: Nodes) -> dict[str, Any]:
    """Put back what an interrupted run left half-way; nothing if none did.

    Example: inv nodes.recover --hosts=node1
    Example: inv nodes.recover --inventory=hosts.ini
    """
    return nodes.do()


@on_nodes(positional=["image"], help={"image": "an image of this machine's engine"})
def preload(run: Run, nodes: Nodes, image: str) -> dict[str, Any]:
    """Load an image into the nodes' runtimes over SSH, for nodes that cannot pull it.

    Example: inv nodes.preload python:3.13-slim --from-cluster
    Example: inv nodes.preload my.registry.io/serve_hostname:0.0.1 --hosts=node1
    """
    from moorage.fleet.rollout import preload as loading

    report = loading.preload(run.settings, run.ui, nodes.chosen(), image, reach=nodes.reach())
    return nodes.told(report, show=loading.parts)


@on_nodes(
    help={
        "port": "where the agent listens (else nodes.agent_port)",
        "loopback": "listen for the node itself only; it is reached through SSH then",
    }
)
def adopt(
    run: Run, nodes: Nodes, port: str | None = None, loopback: bool = False
) -> dict[str, Any]:
    """Make the agent stay on nodes as a service: it puts back what drifts, and answers at once.

    Example: inv nodes.adopt --hosts=node1,node2
    Example: inv nodes.adopt --hosts=node1 --port=7444
    """
    from moorage.errors import Refused

    if port is not None and not (port.isdecimal() and 0 < int(port) < 65536):
        raise Refused(
            "bad-port",
            f"invalid --port={port}",
            cause="expected a number from 1 to 65535",
            cure="write it as --port=7443",
        )
    return nodes.do(port=None if port is None else int(port), loopback=loopback)


@on_nodes()
def release(run: Run, nodes: Nodes) -> dict[str, Any]:
    """Take the resident agent off nodes, whole; their trust in the registry stays.

    Example: inv nodes.release --hosts=node1,node2
    Example: inv nodes.release --hosts=@web --json
    """
    return nodes.do()


@on_nodes(help={"downgrade": "even if the agent there is newer than this folder's"})
def upgrade(run: Run, nodes: Nodes, downgrade: bool = False) -> dict[str, Any]:
    """Give resident agents this folder's archive; one that does not answer keeps its own.

    Example: inv nodes.upgrade --hosts=node1,node2
    Example: inv nodes.upgrade --from-cluster
    """
    return nodes.do(downgrade=downgrade)


@on_nodes(
    help={"offline": "leave the nodes themselves alone: they are lost, or no longer ours"},
    lock=True,
)
def forget(run: Run, nodes: Nodes, offline: bool = False) -> dict[str, Any]:
    """Revoke the certificates of nodes' agents, for good, and take the agents away where they are.

    A node that is out of reach is forgotten all the same: nothing it shows is believed any more.
    Example: inv nodes.forget --hosts=node3
    Example: inv nodes.forget --hosts=node3 --offline
    """
    hosts = nodes.named()
    became = nodes.fleet().forget(hosts, offline=offline)
    for host, what in became.items():
        run.ui.show(f"{host}: {_FORGOTTEN[what]}")
    gone = [host for host, what in became.items() if what != "no-agent"]
    return {"ok": True, "forgotten": gone, "agents": became}


_FORGOTTEN = {
    "no-agent": "had no agent of ours",
    "released": "forgotten, and its agent is gone",
    "left-alone": "forgotten; its agent was left alone",
    "not-reached": "forgotten; it could not be reached, and its agent may still run: inv "
    "nodes.release once it answers",
}


@command(lock=True)
def new_operator(run: Run) -> dict[str, Any]:
    """Replace the operator's key and certificate; agents refuse the old one once they met the new.

    Example: inv nodes.new-operator && inv nodes.status
    Example: inv nodes.new-operator --json
    """
    from moorage import fleet

    generation = fleet.replace_operator(run.settings)
    run.ui.note(f"the operator's certificate is of generation {generation} now")
    run.ui.note("inv nodes.status visits the nodes: each refuses the old one from then on")
    return {"ok": True, "generation": generation}


namespace = Collection(
    "nodes",
    trust,
    untrust,
    verify,
    status,
    watch,
    diff,
    explain,
    history,
    images,
    undo,
    recover,
    preload,
    adopt,
    release,
    upgrade,
    forget,
    new_operator,
)
