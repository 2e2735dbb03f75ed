"""nerdctl: hosts.toml files in the first folder of its ``hosts_dir``, read at every pull.

By default that is containerd's own /etc/containerd/certs.d; nerdctl.toml names others.
https://github.com/containerd/nerdctl/blob/main/docs/config.md
"""

from __future__ import annotations

from agent.facts import Facts
from agent.plan import Plan, Registry
from agent.resources import Finding, Ledger, Owned, Proposal, certs_d, containerd
from agent.toml import TomlError, parse

PART = "nerdctl"
CONFIG = "/etc/nerdctl/nerdctl.toml"
DEFAULT = "/etc/containerd/certs.d"


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The registry's folder; it is often the one containerd's own part has made already."""
    if PART not in facts.others:
        return Proposal(absent="there is no nerdctl here")
    return Proposal(certs_d.changes(PART, facts.tree, _root(facts), plan, owned))


def explain(facts: Facts, plan: Plan) -> tuple[Finding, ...]:
    """Which folder, and by whose word."""
    if PART not in facts.others:
        return (Finding(PART, "hosts_dir", False, "there is no nerdctl here"),)
    root = _root(facts)
    why = f"{root}, {'the default' if root == DEFAULT else f'named in {CONFIG}'}; no restart"
    return (Finding(PART, "hosts_dir", True, why),)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without what is ours."""
    return containerd.strip(owned, content, registry)


def _root(facts: Facts) -> str:
    try:
        said = parse(facts.tree.read(CONFIG).content or b"").get("hosts_dir")
    except TomlError:
        return DEFAULT
    first = said[0] if isinstance(said, list) and said else said
    return first.rstrip("/") if isinstance(first, str) and first.startswith("/") else DEFAULT
