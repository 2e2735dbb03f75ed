"""nerdctl: hosts.toml files in the first folder of its ``hosts_dir``, read at every pull.

By default that is containerd's own /etc/containerd/certs.d; nerdctl.toml names others.
https://github.com/containerd/nerdctl/blob/main/docs/config.md
"""

from __future__ import annotations

from typing import Any

from agent.edit.change import Ledger, Owned
from agent.edit.toml import TomlError, parse
from agent.facts import Facts
from agent.facts.containerd import CONTAINERD_SOCKET
from agent.formats import certs_d
from agent.formats.proposal import Explained, Proof, Proposal
from agent.runtimes import containerd
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import IMAGE, Declaration, Kind

RUNTIME = Declaration(
    "nerdctl",
    place=9,
    kinds=(Kind("nerdctl", ("nerdctl",)),),
    proves="nerdctl",
    by_hand="nerdctl pull",
    certificates="/etc/containerd/certs.d",
)
PART = RUNTIME.name
CONFIG = "/etc/nerdctl/nerdctl.toml"
DEFAULT = "/etc/containerd/certs.d"


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The registry's folder; it is often the one containerd's own part has made already."""
    if PART not in facts.others:
        return Proposal(absent="there is no nerdctl here")
    return Proposal(certs_d.changes(PART, facts.tree, _root(facts), plan, owned))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Which folder, and by whose word."""
    if PART not in facts.others:
        return (Explained(PART, "hosts_dir", False, "there is no nerdctl here"),)
    root = _root(facts)
    why = f"{root}, {'the default' if root == DEFAULT else f'named in {CONFIG}'}; no restart"
    return (Explained(PART, "hosts_dir", True, why),)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without what is ours."""
    return containerd.strip(owned, content, registry)


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull by nerdctl, if the containerd that it would ask is at work."""
    found = facts.others.get(PART)
    address = _said(facts).get("address")
    socket = (address if isinstance(address, str) else "") or CONTAINERD_SOCKET
    socket = socket[len("unix://") :] if socket.startswith("unix://") else socket
    if found is None or not found.binary or not facts.tree.exists(socket):
        return ()
    roots = (_root(facts),)
    return (Proof(RUNTIME.proves, found.binary, roots=roots, command=command(found.binary)),)


def command(program: str) -> tuple[str, ...]:
    """How it pulls. It reads its login as Docker's client does (its docs/registry.md)."""
    return program, "pull", "--quiet", IMAGE


def doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    """nerdctl that is told to verify nothing."""
    if not proofs(facts):
        return ()
    if _said(facts).get("insecure_registry") is True and not plan.registry.plain_http:
        return (
            f"{CONFIG} has insecure_registry: nerdctl does not verify certificates; take it out",
        )
    return certs_d.doubts(facts.tree, [_root(facts)], plan)


def _said(facts: Facts) -> dict[str, Any]:
    try:
        return parse(facts.tree.read(CONFIG).content or b"")
    except TomlError:
        return {}


def _root(facts: Facts) -> str:
    said = _said(facts).get("hosts_dir")
    first = said[0] if isinstance(said, list) and said else said
    return first.rstrip("/") if isinstance(first, str) and first.startswith("/") else DEFAULT
