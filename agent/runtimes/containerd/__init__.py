"""containerd: a folder per registry under ``config_path``, read at every pull without a restart.

Its own configuration is touched only where no such folder counts yet; that alone needs a restart.
The states that are understood are the table ``STRATEGIES``; any other is refused. The measurements
behind it are in ``docs/containerd.md``.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.edit import toml_edit
from agent.edit.change import Change, Ledger, Owned, change, once, readable
from agent.edit.toml import TomlError, at, parse
from agent.edit.toml import shared as parsed
from agent.edit.utf8 import encoding
from agent.facts import Containerd, Facts
from agent.formats import certs_d, client_files, hosts_toml
from agent.formats.authorities import strip_certificates
from agent.formats.hosts_toml import PART
from agent.formats.proposal import Explained, Proof, Proposal, unit_of
from agent.node.tree import Tree
from agent.runtimes.containerd import (
    carried,
    config,
    layers,
    legacy,
    managed,
    reliance,
    remains,
    versions,
)
from agent.runtimes.containerd.config import Drafts
from agent.runtimes.containerd.judge import candidate, differs_in_trust_alone, judge
from agent.runtimes.containerd.layers import Layers
from agent.runtimes.containerd.state import TABLES, CriState, cri_is_off, read, registry_table
from agent.runtimes.containerd.strategies import STRATEGIES, choose, rows
from agent.wire.faults import RefusedError
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import Declaration

__all__ = [
    "FOLDER",
    "PART",
    "RUNTIME",
    "candidate",
    "differs_in_trust_alone",
    "doubts",
    "explain",
    "forgotten",
    "is_configuration",
    "judge",
    "kept",
    "left",
    "proofs",
    "propose",
    "restarts",
    "roots",
    "serves_kubelets",
    "shared",
    "strip",
    "there",
]

RUNTIME = Declaration(
    "containerd",
    place=2,
    usual=True,
    socket="/run/containerd/containerd.sock",
    kubelet=True,
    readers=("containerd.service",),
    by_hand="crictl pull",
    certificates="/etc/containerd/certs.d",
)
FOLDER = "/etc/containerd/certs.d"


@dataclass
class Situation:
    """All that decides about one containerd."""

    found: Containerd
    tree: Tree
    plan: Plan
    owned: Ledger
    merged: dict[str, Any]
    state: CriState
    layers: Layers
    notes: list[str] = field(default_factory=list)

    @property
    def roots(self) -> list[str]:
        """The folders that `config_path` names; a relative one is seen from where it runs, `/`."""
        return ["/" + root.strip("/") for root in self.state.config_path.split(":") if root]


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The registry's folder, and what makes it count, for each containerd that serves CRI."""
    if not facts.containerds:
        return Proposal(absent="there is no containerd here")
    changes: list[Change] = []
    units: list[str] = []
    notes: list[str] = []
    absent: list[str] = []
    for found in facts.containerds:
        one = _propose(found, facts.tree, plan, owned)
        changes += one.changes
        units += one.restarts
        notes += one.notes
        absent += [one.absent] if one.absent else []
    if len(absent) == len(facts.containerds):
        return Proposal(absent="; ".join(dict.fromkeys(absent)), there=True)
    return Proposal(once(changes), tuple(dict.fromkeys(units)), tuple(notes))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Each row of ``STRATEGIES``: whether it applies on this node, and why or why not.

    A containerd that is not there, or a configuration that is refused before the table is reached,
    is told in one row before the others. Several containerds are told one after the other.
    """
    if not facts.containerds:
        return (Explained(PART, "none", False, "there is no containerd here"),)
    several = len(facts.containerds) > 1
    return tuple(
        Explained(PART, row.strategy, row.applies, f"{found.config.path}: {row.why}")
        if several
        else row
        for found in facts.containerds
        for row in _explain(found, facts.tree, plan)
    )


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """A file of ours that others edited since, without our part of it."""
    if client_files.is_one(owned.path):
        return client_files.strip(owned, content)
    if owned.path.endswith(".crt"):
        return strip_certificates(owned, content)
    if owned.path.endswith("/hosts.toml"):
        return hosts_toml.without_ours(owned.path, content)
    return config.without_ours(content, owned.before)


def forgotten(facts: Facts, registry: Registry) -> tuple[Change, ...]:
    """What is ours for a registry by its marks alone: for a node whose state folder is lost."""
    return remains.find(facts, registry, FOLDER)


def shared(item: Owned) -> bool:
    """Whether a file of ours is no single registry's: a setting for all, or what others had."""
    return is_configuration(item.path) or (item.after or b"").startswith(hosts_toml.CARRIED)


def left(facts: Facts, item: Owned, registry: Registry) -> tuple[Change, ...]:
    """What goes with one registry from a file that stays: its classic entry, or its CA."""
    file = facts.tree.read(item.path)
    if item.path.endswith("/hosts.toml"):
        content = file.content
        return () if content is None else change(PART, file, hosts_toml.without_our_ca(content))
    for found in facts.containerds:
        known = layers.read(found, facts.tree)
        if item.path in (layer.path for layer in known.all) and file.content is not None:
            codec = encoding(file.content)
            text = file.content.decode(codec)
            for keys in config.classic_keys(known, registry):
                text = toml_edit.release(text, hosts_toml.COMMENT, keys)
            return change(PART, file, text.encode(codec))
    return ()


def kept(facts: Facts, item: Owned, ledger: Ledger) -> str:
    """Why a setting of ours must stay although this registry goes, or an empty string.

    Registries that came into the folder since would stop to pull without the `config_path`; and
    beside a `config_path`, what was carried into the folder counts nowhere else.
    """
    root = _counting_by_us(item)
    names = reliance.others(facts.tree, root, ledger) if root else ()
    if not names:
        return ""
    if is_configuration(item.path):
        return f"{item.path} keeps its config_path: {', '.join(names)} relies on it"
    return f"{item.path} stays: what it says takes effect nowhere else beside that config_path"


def _counting_by_us(item: Owned) -> str:
    """The folder of registries that counts by what we did to this file, or an empty string."""
    if not is_configuration(item.path):
        place = item.path.rpartition("/")[0]
        return place.rpartition("/")[0] if shared(item) else ""
    with contextlib.suppress(TomlError):
        before, after = parse(item.before or b""), parse(item.after or b"")
        for keys in TABLES.values():
            said = at(after, *keys, "config_path")
            if isinstance(said, str) and said and said != at(before, *keys, "config_path"):
                return "/" + said.partition(":")[0].strip("/")
    return ""


def is_configuration(path: str) -> bool:
    """Whether a file of ours is containerd's own configuration, which it reads at its start."""
    return not path.endswith((".crt", ".cert", ".key", "/hosts.toml"))


def serves_kubelets(found: Containerd) -> bool:
    """Whether this containerd's CRI can be asked."""
    return found.running and not (found.merged is not None and cri_is_off(parsed(found.merged)))


def there(facts: Facts) -> bool:
    """Whether one with files of its own is on the node, at work or not."""
    return bool(facts.containerds)


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull through the CRI of each that serves it."""
    return tuple(
        Proof(
            "cri",
            found.socket,
            unit_of(PART, found.unit.name if found.unit is not None else ""),
            roots=roots(found),
        )
        for found in facts.containerds
        if serves_kubelets(found)
    )


def doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    """A folder that tells containerd to verify nothing."""
    serving = (one for one in facts.containerds if serves_kubelets(one))
    each = (certs_d.doubts(facts.tree, roots(one), plan) for one in serving)
    return tuple(why for found in each for why in found)


def roots(found: Containerd) -> tuple[str, ...]:
    """The folders of hosts.toml files: those that `config_path` names, else our own."""
    merged = parsed(found.merged or b"")
    path = registry_table(merged).get("config_path")
    named = path if isinstance(path, str) else ""
    return tuple("/" + root.strip("/") for root in named.split(":") if root) or (FOLDER,)


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """The services that must be restarted for these changes of their configuration to count."""
    edited = {one.path for one in changes if is_configuration(one.path)}
    units = []
    for found in facts.containerds:
        files = {layer.path for layer in layers.read(found, facts.tree).all}
        if found.running and edited & files:
            units.append(unit_of(PART, found.unit.name if found.unit is not None else ""))
    return tuple(dict.fromkeys(units))


def _explain(found: Containerd, tree: Tree, plan: Plan) -> tuple[Explained, ...]:
    try:
        situation = _situation(found, tree, plan, {})
    except RefusedError as problem:
        return (
            Explained(PART, "refused", True, f"{problem} ({problem.code})"),
            *(Explained(PART, one.name, False, "not reached") for one in STRATEGIES),
        )
    if cri_is_off(situation.merged):
        return (Explained(PART, "none", False, "its CRI plugin is disabled: it serves Docker"),)
    return tuple(Explained(PART, *row) for row in rows(situation.state))


def _propose(found: Containerd, tree: Tree, plan: Plan, owned: Ledger) -> Proposal:
    situation = _situation(found, tree, plan, owned)
    if cri_is_off(situation.merged):
        return Proposal(
            absent="containerd's CRI plugin is disabled: it serves Docker, not a kubelet"
        )
    strategy = choose(situation.state)
    if strategy.refusal is not None:
        code, cure = strategy.refusal
        why = "; ".join(one.yes for one in strategy.when)
        raise RefusedError(code, f"{found.config.path}: {strategy.does}", why, cure)
    changes, edits = DOING[strategy.name](situation)
    unit = found.unit.name if found.running and found.unit is not None else ""
    if edits and found.pid and not unit and plan.options.restart:
        raise RefusedError(
            "containerd-unmanaged",
            f"containerd (process {found.pid}, {found.config.path}) belongs to no service",
            cause="it must be restarted for the edit to count, and nothing here says how",
            cure="apply with restart: false, then restart it by hand",
        )
    anew = managed.generator(tree, edits[0].path) if edits else ""
    situation.notes += [anew] if anew else []
    return Proposal(
        changes=(*changes, *edits),
        restarts=(unit,) if edits and unit else (),
        notes=tuple(situation.notes),
    )


def _situation(found: Containerd, tree: Tree, plan: Plan, owned: Ledger) -> Situation:
    """Refuses what containerd itself does not take, or reads otherwise than it is meant."""
    managed.refuse_immutable(tree)
    content = readable(found.config)
    hosts_toml.parsed(found.config.path, content or b"")
    read_layers = layers.read(found, tree)
    versions.refuse_marked(found, read_layers)
    versions.refuse_unread(found, read_layers)
    if found.merged is None:
        raise RefusedError(
            "config-refused-by-containerd",
            f"containerd {found.version_text} itself refuses {found.config.path}",
            cause=f"it would not start with this file: {found.complaint}",
            cure="see what it says: "
            f"{shlex.join((found.binary, '--config', found.config.path))} config dump",
        )
    merged = parsed(found.merged)
    state = read(found.version, merged, read_layers.written if found.version[0] >= 2 else None)
    notes = versions.notes(found, read_layers)
    return Situation(found, tree, plan, owned, merged, state, read_layers, notes)


Done = tuple[tuple[Change, ...], tuple[Change, ...]]


def _folder(situation: Situation) -> Done:
    return _folders(situation, situation.roots, {}), ()


def _set_config_path(situation: Situation) -> Done:
    drafts = Drafts(situation.layers)
    drafts.set(situation.layers.table, "config_path", FOLDER)
    _note_awakened(situation)
    return _folders(situation, [FOLDER], {}), drafts.changes()


def _one_folder(situation: Situation) -> Done:
    first = situation.roots[0]
    drafts = Drafts(situation.layers)
    drafts.set(situation.layers.table, "config_path", first)
    others = carried.folders(situation.tree, situation.roots)
    return _folders(situation, [first], others), drafts.changes()


def _move_legacy(situation: Situation) -> Done:
    drafts = Drafts(situation.layers)
    drafts.move_mirrors()
    drafts.set(situation.layers.table, "config_path", FOLDER)
    written, ours = situation.layers.written, situation.plan.registry.spellings
    others = legacy.folders(written, ours)
    situation.notes += [*legacy.never_asked(written), *legacy.secured(written, ours)]
    there = [host for host in others if carried.has(situation.tree, FOLDER, host)]
    situation.notes += [f"{FOLDER} has {host} already: that takes effect now" for host in there]
    _note_awakened(situation)
    kept = {host: text for host, text in others.items() if host not in there}
    return _folders(situation, [FOLDER], kept), drafts.changes()


def _classic_entry(situation: Situation) -> Done:
    drafts = Drafts(situation.layers)
    return legacy.entry(situation, drafts, FOLDER), drafts.changes()


DOING = {
    "folder": _folder,
    "folders-ignored": _one_folder,
    "move-legacy": _move_legacy,
    "classic-entry": _classic_entry,
    "set-config-path": _set_config_path,
}


def _folders(situation: Situation, roots: list[str], others: dict[str, str]) -> tuple[Change, ...]:
    """The plan's registries below their roots, and what other registries keep there."""
    tree, plan, owned = situation.tree, situation.plan, situation.owned
    changes: list[Change] = []
    ours = {registry.name for registry in plan.registry.spellings}
    for registry in plan.registry.spellings:
        place = hosts_toml.folder(tree, roots, registry.name)
        versions.refuse_marked_hosts(situation.found, tree.read(f"{place}/hosts.toml"))
        text = others.get(registry.name)
        initial = None if text is None else hosts_toml.CARRIED + text.encode()
        changes += hosts_toml.changes(tree, place, registry, owned, initial)
        if not tree.exists(place) and tree.exists(f"{roots[0]}/{hosts_toml.DEFAULT}"):
            situation.notes.append(
                f"{roots[0]}/{hosts_toml.DEFAULT} no longer applies to {registry.name}: it has a "
                "folder of its own"
            )
    for host, text in others.items():
        if host not in ours:
            file = tree.read(f"{roots[0]}/{host}/hosts.toml")
            changes += change(PART, file, hosts_toml.CARRIED + text.encode())
    for mirror in plan.mirrors:
        if mirror.of in others:
            legacy.require_asked(mirror, others[mirror.of], plan.registry, situation.found.config)
            continue
        made = hosts_toml.mirror_changes(tree, roots, plan.registry, mirror, owned, changes)
        if not made:  # the folder asks ours first already
            file = tree.read(f"{hosts_toml.folder(tree, roots, mirror.of)}/hosts.toml")
            versions.refuse_unheaded(situation.found, file, mirror.url(plan.registry))
        changes += made
    return tuple(changes)


def _note_awakened(situation: Situation) -> None:
    """Folders that lay there unread, and begin to count with the `config_path`."""
    ours = {
        name for one in situation.plan.registry.spellings for name in hosts_toml.names(one.name)
    }
    there = [name for name in situation.tree.names(FOLDER) if name not in ours]
    if there:
        situation.notes.append(
            f"{FOLDER} was there unread, and takes effect now: {', '.join(there)}"
        )
