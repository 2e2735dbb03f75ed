"""k0s: a drop-in in ``/etc/k0s/containerd.d`` that names a folder, and hosts.toml files in it.

k0s merges drop-ins into the configuration it writes for its containerd, as long as that one bears
``k0s_managed=true``. The folder is the one of k0s's own example. https://docs.k0sproject.io/stable/runtime/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agent.edit.change import Change, Ledger, Owned, change, readable
from agent.edit.toml import TomlError, at, parse
from agent.facts import Facts, Runtime
from agent.facts.daemons import option
from agent.formats import certs_d
from agent.formats.proposal import Explained, Proof, Proposal, unit_of
from agent.runtimes import containerd
from agent.runtimes.containerd import reliance
from agent.runtimes.containerd.state import TABLES
from agent.wire.faults import RefusedError
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import Declaration, Kind

RUNTIME = Declaration(
    "k0s",
    place=7,
    kinds=(
        Kind("k0s", ("k0s",), ("k0sworker.service", "k0scontroller.service"), daemon="k0s",
             verbs=("worker", "controller")),
    ),
    socket="/run/k0s/containerd.sock",
    kubelet=True,
    containerds=("/etc/k0s/", "/run/k0s/"),
)  # fmt: skip
PART = RUNTIME.name
MAIN = "/etc/k0s/containerd.toml"
FOLDER = "/etc/k0s/containerd.d"
ROOT = f"{FOLDER}/certs.d"
DROP_IN = f"{FOLDER}/moorage.toml"


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The registry's folder; the drop-in, and one restart, if no other names a folder."""
    found = facts.others.get(PART)
    if found is None:
        return Proposal(absent="there is no k0s here")
    if not _pulls(found) or _endpoint(found):
        return Proposal(absent=_whose(found), there=True)
    _require_managed(facts)
    _refuse_mirrors(facts)
    root = _folder(facts)
    changes = list(certs_d.changes(PART, facts.tree, root or ROOT, plan, owned))
    if not root or DROP_IN in owned:
        changes += change(PART, facts.tree.read(DROP_IN), _drop_in(facts))
    return Proposal(tuple(changes), restarts(facts, changes))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Whose folder is used, or why none can be."""
    if PART not in facts.others:
        return (Explained(PART, "drop-in", False, "there is no k0s here"),)
    found = facts.others[PART]
    if not _pulls(found) or _endpoint(found):
        return (Explained(PART, "drop-in", False, _whose(found)),)
    try:
        _require_managed(facts)
        _refuse_mirrors(facts)
        root = _folder(facts)
    except RefusedError as problem:
        return (Explained(PART, "refused", True, f"{problem} ({problem.code})"),)
    return (
        Explained(PART, "folder", bool(root), f"a drop-in names {root}" if root else "none does"),
        Explained(PART, "drop-in", not root, f"{DROP_IN} names {ROOT}; one restart"),
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
    if not changed or found is None or not found.running:
        return ()
    return (unit_of(PART, found.unit),)


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull through its containerd, or through the runtime that it is given."""
    found = facts.others.get(PART)
    if found is None or not found.running or not _pulls(found):
        return ()
    other = _endpoint(found)
    if other is not None:
        return (Proof(*other),)
    return (Proof("cri", RUNTIME.socket, unit_of(PART, found.unit), roots=(_usual(facts),)),)


def doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    """A folder that tells its containerd to verify nothing."""
    found = facts.others.get(PART)
    if found is None or _endpoint(found):
        return ()
    return certs_d.doubts(facts.tree, [_folder(facts) or ROOT], plan)


def _usual(facts: Facts) -> str:
    """The folder of hosts.toml files; its own if a drop-in is not understood."""
    try:
        return _folder(facts) or ROOT
    except RefusedError:
        return ROOT


def _pulls(found: Runtime) -> bool:
    """A controller runs no pods unless it is told to (``k0s controller --help``)."""
    worker = ("--enable-worker", "--enable-worker=true", "--single", "--single=true")
    return "controller" not in found.argv or any(one in found.argv for one in worker)


def _endpoint(found: Runtime) -> tuple[str, str] | None:
    """Who pulls in the place of its own containerd: the kind and the socket of ``--cri-socket``,
    which is ``remote:unix:///path`` or, before 1.24, ``docker:unix:///path``.
    """
    kind, _, socket = (option(found.argv, "--cri-socket") or "").partition(":")
    if not socket:
        return None
    path = socket[len("unix://") :] if socket.startswith("unix://") else socket
    return ("docker" if kind == "docker" else "cri"), path


def _whose(found: Runtime) -> str:
    endpoint = _endpoint(found)
    if endpoint is None:
        return "k0s is a controller here that runs no pods: it pulls nothing"
    return f"k0s uses the runtime at {endpoint[1]}: that one's own part looks after it"


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
            f"{MAIN} is managed by hand, so k0s does not read drop-ins",
            cause="its first line is not `# k0s_managed=true`",
            cure=f"set config_path in {MAIN} by hand, or remove it and restart k0s",
        )


def _registries(facts: Facts) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each drop-in's registry table, with its path and the name of the table it is in."""
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
            table = at(tables, *keys)
            if isinstance(table, dict):
                yield path, f'plugins."{keys[1]}".registry', table


def _refuse_mirrors(facts: Facts) -> None:
    """``mirrors`` and ``configs.*.tls`` beside a ``config_path``: containerd loads no CRI then.

    ``ValidatePluginConfig`` in its internal/cri/config, and measured (docs/runtimes.md).
    """
    for path, name, table in _registries(facts):
        entries = table.get("configs") or {}
        tls = any(isinstance(one, dict) and one.get("tls") for one in entries.values())
        key = "mirrors" if table.get("mirrors") else "configs" if tls else ""
        if key:
            raise RefusedError(
                "k0s-mirrors",
                f"{path} has [{name}.{key}], and containerd does not accept a folder of registries "
                "as well",
                cause="containerd's CRI does not load where both are set, and the folder is what "
                "the registry's CA goes into",
                cure=f"write what {path} says as {ROOT}/<registry>/hosts.toml, take {key} out of "
                f"it, and run again",
            )


def _folder(facts: Facts) -> str:
    """The folder a drop-in names, an empty string where none does."""
    for _, _, table in _registries(facts):
        said = table.get("config_path")
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
