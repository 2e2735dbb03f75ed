"""k0s: a drop-in in ``/etc/k0s/containerd.d`` that names a folder, and hosts.toml files in it.

k0s merges drop-ins into the configuration it writes for its containerd, as long as that one bears
``k0s_managed=true``. The folder is the one of k0s's own example. https://docs.k0sproject.io/stable/runtime/
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.facts import Facts
from agent.faults import RefusedError
from agent.plan import Plan, Registry
from agent.resources import (
    Change,
    Finding,
    Ledger,
    Owned,
    Proof,
    Proposal,
    certs_d,
    change,
    containerd,
    readable,
)
from agent.resources.containerd import reliance
from agent.resources.containerd.state import TABLES
from agent.toml import TomlError, at, parse

PART = "k0s"
MAIN = "/etc/k0s/containerd.toml"
FOLDER = "/etc/k0s/containerd.d"
ROOT = f"{FOLDER}/certs.d"
DROP_IN = f"{FOLDER}/moorage.toml"
SOCKET = "/run/k0s/containerd.sock"


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The registry's folder; the drop-in, and one restart, where no other names a folder."""
    if PART not in facts.others:
        return Proposal(absent="there is no k0s here")
    _require_managed(facts)
    root = _folder(facts)
    changes = list(certs_d.changes(PART, facts.tree, root or ROOT, plan, owned))
    if not root or DROP_IN in owned:
        changes += change(PART, facts.tree.read(DROP_IN), _drop_in(facts))
    return Proposal(tuple(changes), restarts(facts, changes))


def explain(facts: Facts, plan: Plan) -> tuple[Finding, ...]:
    """Whose folder is used, or why none can be."""
    if PART not in facts.others:
        return (Finding(PART, "drop-in", False, "there is no k0s here"),)
    try:
        _require_managed(facts)
        root = _folder(facts)
    except RefusedError as problem:
        return (Finding(PART, "refused", True, f"{problem} ({problem.code})"),)
    return (
        Finding(PART, "folder", bool(root), f"a drop-in names {root}" if root else "none does"),
        Finding(PART, "drop-in", not root, f"{DROP_IN} names {ROOT}; one restart"),
    )


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without what is ours; the drop-in is ours alone."""
    if certs_d.is_of_a_registry(owned.path):
        return containerd.strip(owned, content, registry)
    return None


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """k0s's service where the drop-in came or went; its containers live on."""
    found = facts.others.get(PART)
    changed = any(one.path == DROP_IN for one in changes)
    return (found.unit,) if changed and found is not None and found.unit and found.running else ()


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull through its containerd."""
    found = facts.others.get(PART)
    return (Proof("cri", SOCKET, found.unit),) if found is not None and found.running else ()


def is_configuration(path: str) -> bool:
    return path == DROP_IN


def shared(item: Owned) -> bool:
    """The drop-in serves all registries."""
    return is_configuration(item.path)


def kept(facts: Facts, item: Owned, ledger: Ledger) -> str:
    """Why the drop-in must stay although this registry goes, or an empty string."""
    names = reliance.others(facts.tree, ROOT, ledger) if is_configuration(item.path) else ()
    return f"{item.path} stays: {', '.join(names)} relies on it" if names else ""


def _require_managed(facts: Facts) -> None:
    content = readable(facts.tree.read(MAIN))
    if content is not None and b"k0s_managed=true" not in content.partition(b"\n")[0]:
        raise RefusedError(
            "k0s-not-managed",
            f"{MAIN} is managed by hand, so k0s reads no drop-ins",
            cause="its first line is not `# k0s_managed=true`",
            cure=f"set config_path in {MAIN} by hand, or remove it and restart k0s",
        )


def _folder(facts: Facts) -> str:
    """The folder a drop-in names, an empty string where none does."""
    for name in facts.tree.names(FOLDER):
        path = f"{FOLDER}/{name}"
        if not name.endswith(".toml"):
            continue
        try:
            tables = parse(readable(facts.tree.read(path)) or b"")
        except TomlError as problem:
            raise RefusedError(
                "config-not-toml",
                f"{path} is not TOML: {problem}",
                cause="k0s itself cannot read it",
                cure=f"correct {path}, then run again",
            ) from None
        for keys in TABLES.values():
            said = at(tables, *keys, "config_path")
            if isinstance(said, str) and said.startswith("/"):
                return said.partition(":")[0].rstrip("/")
    return ""


def _drop_in(facts: Facts) -> bytes:
    """In the version that k0s's containerd reads: 3 from its 2.x on, as its own file tells."""
    try:
        said = parse(facts.tree.read(MAIN).content or b"").get("version", 2)
    except TomlError:
        said = 2
    version = 3 if said == 3 else 2
    plugin = TABLES[version][1]
    return (
        "# Written by Moorage; `nodes.untrust` takes it away.\n"
        f'version = {version}\n\n[plugins."{plugin}".registry]\n  config_path = "{ROOT}"\n'
    ).encode()
