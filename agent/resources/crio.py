"""CRI-O: the folders of containers/image.

``certs.d`` is read at every pull. ``registries.conf.d`` is read anew at a reload, without a restart
(crio.conf(5): "The containers-registries.conf(5) file can be reloaded as well by sending SIGHUP to
the crio process").
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.facts import Facts
from agent.host import RELOAD
from agent.plan import Plan, Registry
from agent.resources import Change, Finding, Ledger, Owned, Proof, Proposal, registries_conf
from agent.resources.podman import explained
from agent.toml import TomlError, at, parse

PART = "crio"
SOCKET = "/run/crio/crio.sock"
_FILES = ("/etc/crio/crio.conf",)
_FOLDER = "/etc/crio/crio.conf.d"


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The CA in /etc/containers/certs.d, a drop-in for a mirror or for plain HTTP."""
    if PART not in facts.others:
        return Proposal(absent="there is no CRI-O here")
    changes = registries_conf.changes(PART, facts, plan, owned)
    return Proposal(changes, restarts(facts, changes))


def explain(facts: Facts, plan: Plan) -> tuple[Finding, ...]:
    """Which folder counts, and why."""
    if PART not in facts.others:
        return (Finding(PART, "certs.d", False, "there is no CRI-O here"),)
    return explained(PART, facts, plan, "read at every pull, no restart")


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without what is ours."""
    return registries_conf.strip(owned, content)


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """A reload where a drop-in changed, whoever of the programs that read it made the change."""
    found = facts.others.get(PART)
    if found is None or not found.unit or not found.running:
        return ()
    changed = any(registries_conf.is_drop_in(one.path) for one in changes)
    return (f"{RELOAD}{found.unit}",) if changed else ()


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull through its CRI socket."""
    found = facts.others.get(PART)
    if found is None or not found.running:
        return ()
    return (Proof("cri", _socket(facts), found.unit),)


def _socket(facts: Facts) -> str:
    """``listen`` of [crio.api], the last file's word."""
    tree = facts.tree
    found = SOCKET
    for path in (*_FILES, *(f"{_FOLDER}/{name}" for name in tree.names(_FOLDER))):
        try:
            listen = at(parse(tree.read(path).content or b""), "crio", "api", "listen")
        except TomlError:
            continue
        if isinstance(listen, str) and listen:
            found = listen.replace("unix://", "")
    return found
