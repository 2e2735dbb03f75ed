"""containerd: a folder per registry under ``config_path``, read at every pull without a restart.

``config.toml`` is touched only where it names no such folder yet; that alone needs a restart. The
states that are understood are the table ``STRATEGIES``; any other is refused. The measurements
behind it are in ``docs/containerd.md``.
"""

from __future__ import annotations

from typing import Any

from agent import toml_edit
from agent.facts import Containerd, Facts, File, Tree
from agent.faults import RefusedError
from agent.plan import Plan, Registry
from agent.resources import Change, Finding, Ledger, Owned, Proposal, certificates, change, readable
from agent.resources.containerd.state import (
    TABLES,
    State,
    cri_is_off,
    read,
    registry_table,
)
from agent.resources.containerd.strategies import STRATEGIES, choose, rows
from agent.resources.docker import certificate_file, strip_certificates
from agent.toml import TomlError, at, parse

PART = "containerd"
FOLDER = "/etc/containerd/certs.d"
COMMENT = "# Added by Moorage; `nodes.untrust` takes it away."


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The registry's folder, and `config_path` where none is set."""
    containerd = facts.containerd
    if containerd is None:
        return Proposal(absent="there is no containerd here")
    content = readable(containerd.config)
    merged = _merged(containerd, content)
    if cri_is_off(merged):
        return Proposal(
            absent="containerd's CRI plugin is disabled: it serves Docker, not a kubelet",
            there=True,
        )
    state = read(containerd.version, merged)
    strategy = choose(state)
    if strategy.refusal is not None:
        code, cure = strategy.refusal
        why = "; ".join(one.yes for one in strategy.when)
        raise RefusedError(code, f"{containerd.config.path}: {strategy.does}", why, cure)
    folder = _folder(facts.tree, state, plan.registry)
    changes = _registry_files(facts.tree, folder, plan.registry, owned)
    if not strategy.edits:
        return Proposal(changes=changes)
    edited = _with_config_path(containerd, content)
    return Proposal(changes=(*changes, *edited), restarts=restarts(containerd, edited))


def explain(facts: Facts, plan: Plan) -> tuple[Finding, ...]:
    """Each row of ``STRATEGIES``: whether it applies on this node, and why or why not.

    A containerd that is not there, or a configuration that is refused before the table is reached,
    is told in one row before the others.
    """
    containerd = facts.containerd
    if containerd is None:
        return (Finding(PART, "none", False, "there is no containerd here"),)
    try:
        merged = _merged(containerd, readable(containerd.config))
    except RefusedError as problem:
        return (
            Finding(PART, "refused", True, f"{problem} ({problem.code})"),
            *(Finding(PART, one.name, False, "not reached") for one in STRATEGIES),
        )
    if cri_is_off(merged):
        return (Finding(PART, "none", False, "its CRI plugin is disabled: it serves Docker"),)
    return tuple(Finding(PART, *row) for row in rows(read(containerd.version, merged)))


def serves_kubelets(facts: Facts) -> bool:
    """Whether there is a containerd here whose CRI can be asked."""
    found = facts.containerd
    return (
        found is not None
        and found.running
        and not (found.merged is not None and cri_is_off(parse(found.merged)))
    )


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """A file of ours that others edited since, without our part of it."""
    if owned.path.endswith(".crt"):
        return strip_certificates(owned, content)
    if owned.path.endswith("/hosts.toml"):
        return _without_our_ca(owned, content)
    table = TABLES.get(_version(_parsed(owned.path, content), 2), TABLES[2])
    before = (owned.before or b"").decode("utf-8")
    text = toml_edit.unset(content.decode("utf-8"), table, "config_path", before, COMMENT)
    return text.encode("utf-8")


def differs_in_trust_alone(before: bytes, after: bytes) -> bool:
    """Whether two `config dump`s differ in `config_path` and nothing else."""
    old, new = parse(before), parse(after)
    for tables in (old, new):
        tables.pop("imports", None)  # 1.x lists the file itself there, under the name it was given
        for keys in TABLES.values():
            _take_out(tables, (*keys, "config_path"))
    return old == new


def _take_out(tables: dict[str, Any], keys: toml_edit.Keys) -> None:
    """Remove a value, and the tables that are empty without it."""
    inner = tables.get(keys[0])
    if len(keys) > 1 and isinstance(inner, dict):
        _take_out(inner, keys[1:])
    if len(keys) == 1 or inner == {}:
        tables.pop(keys[0], None)


def config_path(merged: bytes) -> str:
    """The folder a `config dump` says CRI reads, or an empty string."""
    return registry_table(parse(merged)).get("config_path") or ""


def _merged(containerd: Containerd, content: bytes | None) -> dict[str, Any]:
    """The configuration in force. What containerd itself does not take is refused here."""
    tables = _parsed(containerd.config.path, content or b"")
    version = _version(tables, 2 if _says_nothing(tables) else 1)
    newest = 2 if containerd.version[0] < 2 else 3
    if version not in TABLES or version > newest or (version == 1 and containerd.version[0] >= 2):
        raise RefusedError(
            "config-version",
            f"{containerd.config.path} is of version {version}, which containerd "
            f"{containerd.version_text} does not read as the registry part needs it",
            cause=f"containerd {containerd.version_text} reads versions up to {newest}",
            cure="migrate the file (containerd config migrate), then run again",
        )
    if content is None:
        return tables
    if containerd.merged is None:
        raise RefusedError(
            "config-refused-by-containerd",
            f"containerd {containerd.version_text} itself refuses {containerd.config.path}",
            cause="it would not start with this file",
            cure=f"see what it says: {containerd.binary} --config {containerd.config.path} "
            "config dump",
        )
    return parse(containerd.merged)


def _parsed(path: str, content: bytes) -> dict[str, Any]:
    try:
        return parse(content)
    except TomlError as problem:
        utf8 = "UTF-8" in str(problem)
        raise RefusedError(
            "config-not-utf8" if utf8 else "config-not-toml",
            f"{path} is not {'UTF-8' if utf8 else 'TOML'}: {problem}",
            cause="the file is damaged, or is not what containerd reads",
            cure=f"correct {path}, then run again",
        ) from None


def _version(tables: dict[str, Any], default: int) -> int:
    version = tables.get("version", default)
    return version if isinstance(version, int) else 0


def _says_nothing(tables: dict[str, Any]) -> bool:
    """Whether a file has no version and nothing whose meaning a version would change."""
    return not any(
        tables.get(key) for key in ("version", "plugins", "disabled_plugins", "required_plugins")
    )


def _folder(tree: Tree, state: State, registry: Registry) -> str:
    """The registry's folder: one that is there already, else a new one under the first root.

    containerd looks for ``host_port_`` before ``host:port``: a folder of the former form wins.
    """
    roots = [root for root in state.config_path.split(":") if root.startswith("/")] or [FOLDER]
    names = [registry.name]
    if registry.port != 443:
        names.insert(0, f"{registry.host}_{registry.port}_")
    for root in roots:
        for name in names:
            if tree.exists(f"{root.rstrip('/')}/{name}"):
                return f"{root.rstrip('/')}/{name}"
    return f"{roots[0].rstrip('/')}/{registry.name}"


def _registry_files(
    tree: Tree, folder: str, registry: Registry, owned: Ledger
) -> tuple[Change, ...]:
    """`ca.crt` and the `hosts.toml` that names it; beside another tool's files, what fits those."""
    hosts = tree.read(f"{folder}/hosts.toml")
    there = readable(hosts)
    ca = f"{folder}/ca.crt"
    ours = hosts_toml(registry, ca)
    mine = owned.get(hosts.path)
    if there is None and any(
        name.endswith((".crt", ".cert", ".key")) and f"{folder}/{name}" not in owned
        for name in tree.names(folder)
    ):
        # Certificates without a hosts.toml are read as Docker reads them; a hosts.toml would end
        # that for all of them, so the CA joins them instead.
        return certificate_file(PART, tree, folder, registry, owned)
    if there is None or there == ours or (mine is not None and there == mine.after):
        file = tree.read(ca)
        return (
            *change(PART, file, _ca_beside(readable(file), registry)),
            *change(PART, hosts, ours),
        )
    if _trusts(tree, folder, hosts, registry):
        return ()
    raise RefusedError(
        "hosts-toml-foreign",
        f"{hosts.path} is another tool's, and does not name this CA",
        cause="someone else configured this registry here",
        cure=f"add the CA to it, or move it away: mv {hosts.path} {hosts.path}.old",
    )


def hosts_toml(registry: Registry, ca: str) -> bytes:
    """The whole file: one server, itself, with its CA."""
    return (
        "# Written by Moorage; `nodes.untrust` takes it away.\n"
        f'server = "{registry.url}"\n'
        f'ca = "{ca}"\n'
    ).encode()


def _ca_beside(content: bytes | None, registry: Registry) -> bytes:
    """The CA file's bytes: as they are where they hold just this CA in another spelling."""
    same = content is not None and certificates(content) == certificates(registry.ca_bytes)
    return content if same and content is not None else registry.ca_bytes


def _trusts(tree: Tree, folder: str, hosts: File, registry: Registry) -> bool:
    """Whether another's hosts.toml reaches this registry with a CA file that holds our CA."""
    tables = _parsed(hosts.path, hosts.content or b"")
    server = tables.get("server")
    levels = [tables] if server in (registry.url, registry.name) else []
    named = at(tables, "host", registry.url)
    levels = [named] if isinstance(named, dict) else levels
    for level in levels:
        value = level.get("ca")
        paths = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        files = [path if path.startswith("/") else f"{folder}/{path}" for path in map(str, paths)]
        held = frozenset().union(*(certificates(tree.read(path).content) for path in files))
        if certificates(registry.ca_bytes) <= held:
            return True
    return False


def _without_our_ca(owned: Owned, content: bytes) -> bytes | None:
    """Our hosts.toml with what others added to it: only the `ca` that names our file goes."""
    try:
        text = content.decode("utf-8")
        layout = toml_edit.scan(text)
        parse(content)
    except (TomlError, UnicodeDecodeError, ValueError):
        return content
    entry = layout.entry(("ca",))
    ours = owned.path.rpartition("/")[0] + "/ca.crt"
    if entry is None or ours not in text[entry.value : entry.value_end]:
        return content
    return (text[: entry.start] + text[entry.end :]).encode("utf-8")


def _with_config_path(containerd: Containerd, content: bytes | None) -> tuple[Change, ...]:
    """The edit of `config.toml`, proved to change nothing but `config_path`."""
    text = (content or b"").decode("utf-8")
    tables = parse(content or b"")
    version = _version(tables, 1)
    if _says_nothing(tables):
        version = 2 if containerd.version[0] < 2 else 3
        newline = "\r\n" if "\r\n" in text else "\n"
        text = f"version = {version}{newline}{text}"
    keys = TABLES[version]
    try:
        edited = toml_edit.set_string(text, keys, "config_path", FOLDER, COMMENT)
        result: dict[str, Any] | None = parse(edited.encode("utf-8"))
    except ValueError:
        result = None
    expected = parse(text.encode("utf-8"))
    table: Any = expected
    for key in keys:
        table = table.setdefault(key, {}) if isinstance(table, dict) else {}
    if isinstance(table, dict):
        table["config_path"] = FOLDER
    if result is None or result != expected:
        raise RefusedError(
            "config-not-understood",
            f"{containerd.config.path} is written in a way that cannot be edited safely",
            cause=f"[{'.'.join(keys)}] cannot be set in it without rewriting other lines",
            cure=f'set config_path = "{FOLDER}" in it by hand, then run again',
        )
    return change(PART, containerd.config, edited.encode("utf-8"))


def restarts(containerd: Containerd | None, edited: tuple[Change, ...]) -> tuple[str, ...]:
    """The service that must be restarted for an edit of its configuration to count."""
    unit = containerd.unit if containerd is not None and containerd.running else None
    return (unit.name,) if edited and unit is not None else ()
