"""Throw-away nodes in Docker."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from lab import LabNode


@command(
    lock=True,
    help={
        "nodes": "which, as 1.6,1.7*2,2: lines of containerd, *N for N of one; 1 to 64 in all",
        "kubernetes": "make them a cluster, those whose containerd its kubelet can speak to",
    },
)
def up(run: Run, nodes: str | None = None, kubernetes: bool = False, yes: bool = False) -> object:
    """Start throw-away nodes with systemd, sshd and containerd 1.6, 1.7 and 2.x.

    Nodes that run already and are as asked for are left alone; others are made, started or removed.

    Example: inv lab.up --nodes "1.6,1.7*2,2" --kubernetes
    Example: inv lab.up --nodes=2 --yes
    """
    import lab
    from lab import kubernetes as clusters
    from moorage.docker import engine

    settings, ui = run.settings, run.ui
    actions = [*engine.pending(settings), *lab.pending(settings, nodes)]
    if kubernetes:
        actions += clusters.pending(settings, nodes)
    ui.confirm([action.text for action in actions if action.asks])
    engine.ensure(settings, ui.progress)
    client = engine.connect(settings)
    before = {node.container_id for node in lab.nodes(settings, client)}
    if kubernetes:
        clusters.fetch(settings, client, ui)
    found = lab.up(settings, client, ui, nodes)
    ui.table(
        ("node", "address", "containerd", "version"),
        [(node.name, node.address, node.containerd_line, node.version) for node in found],
    )
    first = found[0].name
    config = shlex.quote(str(lab.ssh_config(settings)))
    ui.show(f"Next: inv lab.ssh {first}   or   ssh -F {config} {first}")
    changed = before != {node.container_id for node in found}
    document = {"ok": True, "changed": changed, "nodes": [_described(node) for node in found]}
    if not kubernetes:
        return document
    cluster = clusters.up(settings, client, ui, found)
    ui.show(f"Kubernetes {cluster.version} runs on {', '.join(cluster.nodes)}.")
    ui.show(f"Next: {cluster.command} get nodes")
    return {
        **document,
        "changed": changed or cluster.changed,
        "kubernetes": cluster.to_json(),
    }


@command(lock=True, help={"images": "the images that nodes are made from, too"})
def down(run: Run, images: bool = False) -> object:
    """Remove the lab's nodes, their volumes and their keys.

    Example: inv lab.down --images
    Example: inv lab.down --json
    """
    import lab
    from moorage.docker import engine
    from moorage.pki.roster import Roster
    from moorage.rotation import rotation

    client = engine.connect(run.settings)
    removed = lab.down(run.settings, client, run.ui, images=images)
    Roster(run.settings).drop(*removed.nodes)  # the agents that stayed there are gone with them
    rotation.let_cluster_go(run.settings, removed.cluster)
    run.ui.show("The lab is gone." if removed.changed else "There was no lab.")
    return {"ok": True, "changed": removed.changed, "nodes": []}


@command(
    positional=["node"],
    help={"node": "lab1, lab2, …", "command": "run this there instead of a shell"},
)
def ssh(run: Run, node: str, command: str = "") -> object:
    """Open a root shell on a node of the lab, or run a command there.

    The exit code is the command's own; with --json the document carries it, and the output.

    Example: inv lab.ssh lab1 --command "ctr plugins ls"
    Example: inv lab.ssh lab1
    """
    import lab
    from moorage import commands
    from moorage.docker import engine

    settings = run.settings
    known = [found.name for found in lab.nodes(settings, engine.connect(settings))]
    argv = lab.ssh_command(settings, lab.need_node(node, known), command)
    if not run.ui.as_json:
        commands.become(argv)
    done = commands.run(argv, check=False)
    return {
        "ok": done.returncode == 0,
        "exit_code": done.returncode,
        "stdout": done.stdout.decode(errors="replace"),
        "stderr": done.stderr.decode(errors="replace"),
    }


def _described(node: LabNode) -> dict[str, Any]:
    return {
        "name": node.name,
        "address": node.address,
        "containerd": node.containerd_line,
        "version": node.version,
        "container_id": node.container_id,
    }


namespace = Collection("lab", up, down, ssh)
