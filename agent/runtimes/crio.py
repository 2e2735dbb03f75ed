"""CRI-O: the folders of containers/image.

``certs.d`` is read at every pull. ``registries.conf.d`` is read anew at a reload, without a restart
(crio.conf(5): "The containers-registries.conf(5) file can be reloaded as well by sending SIGHUP to
the crio process").
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.edit.change import Change, Ledger, Owned
from agent.edit.toml import TomlError, at, parse
from agent.facts import Facts
from agent.facts.daemons import option
from agent.formats import registries_conf
from agent.formats.proposal import Explained, Proof, Proposal, unit_of
from agent.node.host import RELOAD
from agent.node.tree import Tree
from agent.runtimes.podman import explained
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import Declaration, Kind

RUNTIME = Declaration(
    "crio",
    place=3,
    kinds=(Kind("crio", ("crio",), ("crio.service", "cri-o.service"), daemon="crio"),),
    socket="/run/crio/crio.sock",
    kubelet=True,
)
PART = RUNTIME.name
_FILE = "/etc/crio/crio.conf"
_FOLDER = "/etc/crio/crio.conf.d"


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The CA in /etc/containers/certs.d, a drop-in for a mirror or for plain HTTP."""
    if PART not in facts.others:
        return Proposal(absent="there is no CRI-O here")
    changes = registries_conf.changes(PART, facts, plan, owned)
    return Proposal(changes, restarts(facts, changes))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Which folder counts, and why."""
    if PART not in facts.others:
        return (Explained(PART, "certs.d", False, "there is no CRI-O here"),)
    return explained(PART, facts, plan, "read at every pull, no restart")


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without what is ours."""
    return registries_conf.strip(owned, content)


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """A reload where a drop-in changed, whoever of the programs that read it made the change."""
    found = facts.others.get(PART)
    if found is None or not found.running:
        return ()
    changed = any(registries_conf.is_drop_in(one.path) for one in changes)
    return (f"{RELOAD}{unit_of(PART, found.unit)}",) if changed else ()


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull through its CRI socket."""
    found = facts.others.get(PART)
    if found is None or not found.running:
        return ()
    return (Proof("cri", _socket(facts.tree, found.argv), unit_of(PART, found.unit)),)


def doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    """A table, or an option, that tells it to verify nothing."""
    found = facts.others.get(PART)
    argv = found.argv if found is not None else ()
    told = (option(argv, "--insecure-registry") or "").split(",")
    named = [one.name for one in plan.registry.spellings if one.name in told]
    words = [f"CRI-O is started with --insecure-registry={name}: take it out" for name in named]
    return (
        *registries_conf.doubts(facts.tree, plan),
        *(() if plan.registry.plain_http else words),
    )


def _socket(tree: Tree, argv: tuple[str, ...]) -> str:
    """The option's word, else ``listen`` of [crio.api] in the last file that has it (crio(8))."""
    told = option(argv, "--listen")
    if told:
        return told.replace("unix://", "")
    found = RUNTIME.socket
    folder = option(argv, "--config-dir", "-d") or _FOLDER
    main = option(argv, "--config", "-c") or _FILE
    for path in (main, *(f"{folder}/{name}" for name in tree.names(folder))):
        try:
            listen = at(parse(tree.read(path).content or b""), "crio", "api", "listen")
        except TomlError:
            continue
        if isinstance(listen, str) and listen:
            found = listen.replace("unix://", "")
    return found
