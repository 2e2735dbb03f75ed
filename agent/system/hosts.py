"""The hosts file: one line of ours, marked, that gives the registry's names their address.

Of several registries each has a line of its own, also for a name that two of them have: so each
can go. A second one on the same host is told apart by its name in the mark. An entry that is right
already is left alone, a different one is refused, or with ``replace`` turned into a comment that
``strip`` turns back. Where DNS gives the right address, none is made. Where cloud-init writes the
file anew at each boot (``manage_etc_hosts``), the entry goes into its template too, or it would be
lost.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from agent.edit.change import Change, Ledger, Owned, change, readable, sharing
from agent.facts import Facts
from agent.formats.proposal import Explained, Proposal
from agent.system import cloud_init
from agent.wire.faults import RefusedError
from agent.wire.plan import Plan, Registry

PART = "hosts"
PATH = "/etc/hosts"
MARK = b"# moorage"
KEPT = b"# moorage kept"
REPLACED = b"# moorage replaced: "
NO_OTHERS: Mapping[str, Owned] = MappingProxyType({})
# An entry of ours, of whichever registry.
_ENTRY = re.compile(re.escape(MARK) + rb"(?: [a-z0-9.:-]+)?$")


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """One entry with the plan's address; none where names are left to DNS, or DNS has it right."""
    registry = plan.registry
    if registry.address is None:
        return Proposal(absent="the plan names no address: names are left to DNS")
    content = readable(facts.tree.read(PATH)) or b""
    if _left_to_dns(facts, content, registry):
        return Proposal(absent=f"DNS gives {registry.host} the address {registry.address} already")
    changes: list[Change] = []
    for path in (PATH, *cloud_init.templates(facts.tree)):
        file = facts.tree.read(path)
        mark = _Mark.of(registry, owned.get(path), sharing(owned, path))
        after = _with_entry(path, readable(file) or b"", registry, plan.options.replace, mark)
        changes += change(PART, file, after)
    return Proposal(tuple(changes))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Whether the hosts file needs our entry, has one, or has somebody else's."""
    try:
        proposal = propose(facts, plan, {})
    except RefusedError as problem:
        return (Explained(PART, "refused", True, f"{problem} ({problem.code})"),)
    if proposal.absent:
        return (Explained(PART, "left-to-dns", True, proposal.absent),)
    registry = plan.registry
    what = f"{PATH} {'needs' if proposal.changes else 'has'} {registry.address} {registry.host}"
    found = [Explained(PART, "entry" if proposal.changes else "entry-there", True, what)]
    for path in cloud_init.templates(facts.tree):
        why = (
            f"cloud-init writes {PATH} from {path} again at each boot, so the entry goes there too"
        )
        found.append(Explained(PART, "cloud-init-template", True, why))
    return tuple(found)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without our line, and with what it replaced."""
    mark = _Mark.of(registry, owned)
    ours = [_Entry.of(line) for line in _lines(owned.after or b"") if mark.is_on(line)]
    names = {mark.host, *(name for entry in ours for name in entry.hosts)}
    theirs = [_Entry.of(line) for line in _lines(content) if _of_another(line, mark)]
    kept: list[bytes] = []
    for line in _lines(content):
        if mark.is_on(line):
            continue
        was = line[len(REPLACED) :] if line.startswith(REPLACED) else b""
        if not any(_Entry.of(was).names(name) for name in names):
            kept.append(line)
            continue
        back = _given_back(was, theirs)
        kept += [one for one in back if KEPT not in one or one not in kept]
    stripped = b"".join(kept)
    return None if owned.before is None and not stripped else stripped


def forgotten(facts: Facts, registry: Registry) -> tuple[Change, ...]:
    """What our mark shows to be ours, without any memory of it."""
    file = facts.tree.read(PATH)
    if file.content is None:
        return ()
    return change(PART, file, strip(Owned(PART, PATH, b"", None), file.content, registry))


class _Entry(NamedTuple):
    address: bytes = b""
    hosts: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, line: bytes) -> _Entry:
        words = line.partition(b"#")[0].split()
        return cls(words[0], tuple(words[1:])) if len(words) > 1 else cls()

    def names(self, host: bytes) -> bool:
        return host in (name.lower() for name in self.hosts)

    def is_at(self, address: str) -> bool:
        text = self.address.decode("ascii", "replace")
        try:
            return ipaddress.ip_address(text) == ipaddress.ip_address(address)
        except ValueError:
            return False


def _lines(content: bytes) -> list[bytes]:
    """The lines with their ends; only a line feed ends one, as for the C library."""
    lines = content.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


class _Mark(NamedTuple):
    """How the lines of one registry end; ``plain``: whether those without a name in it are its."""

    host: bytes
    named: bytes
    plain: bool

    @classmethod
    def of(
        cls, registry: Registry, mine: Owned | None, others: Mapping[str, Owned] = NO_OTHERS
    ) -> _Mark:
        """``mine``: what is ours of the file for this registry, ``others`` for other ones."""
        host, named = registry.host.encode(), MARK + b" " + registry.name.encode()
        if mine is None:
            return cls(host, named, registry.host not in {one.partition(":")[0] for one in others})
        lines = _lines(mine.after or b"")
        return cls(host, named, not any(line.rstrip().endswith(named) for line in lines))

    def is_on(self, line: bytes) -> bool:
        """A line we added: our entry, or the other names of an entry we replaced."""
        rest = line.rstrip()
        if rest.endswith((KEPT + b" without " + self.host, self.named)):
            return True
        return self.plain and rest.endswith(MARK) and _Entry.of(line).hosts[:1] == (self.host,)


def _of_another(line: bytes, mark: _Mark) -> bool:
    """Whether another registry of ours has added an entry."""
    return _ENTRY.search(line.rstrip()) is not None and not mark.is_on(line)


def _given_back(was: bytes, theirs: list[_Entry]) -> list[bytes]:
    """What stands in the place of an entry once one registry goes: another may replace it still."""
    entry = _Entry.of(was)
    for one in theirs:
        said = [name for name in one.hosts if entry.names(name)]
        if said:
            return _replaced(was, entry, said, one.hosts[0])
    return [was]


def _with_entry(path: str, content: bytes, registry: Registry, replace: bool, mark: _Mark) -> bytes:
    address = registry.address or ""
    host = registry.host.encode()
    names = [one.host.encode() for one in registry.each]
    lines: list[bytes] = []
    missing = list(names)
    place = -1
    for number, line in enumerate(_lines(content), 1):
        entry = _Entry.of(line)
        said = [name for name in names if entry.names(name)]
        if mark.is_on(line):
            if KEPT in line:
                lines.append(line)
            elif place < 0:
                place = len(lines)  # where it stands it stays, for the same bytes as before
        elif not said or (_of_another(line, mark) and entry.is_at(address)):
            lines.append(line)
        elif entry.is_at(address):
            missing = [name for name in missing if name not in said]
            lines.append(line)
        elif _of_another(line, mark):
            raise _shared(path, number, entry, said[0].decode(), registry)
        elif replace:
            lines.extend(_replaced(line, entry, said, host))
        else:
            raise _conflict(path, number, entry, said[0].decode(), registry)
    if missing:
        # The first name leads, and is how the line is known again.
        words = [host, *(name for name in missing if name != host)]
        end = MARK if mark.plain else mark.named
        ours = address.encode() + b"\t" + b" ".join(words) + b" " + end + b"\n"
        if place < 0:
            # Before an unterminated last line, so that taking ours away gives the same bytes back.
            place = len(lines) - 1 if lines and not lines[-1].endswith(b"\n") else len(lines)
        lines.insert(place, ours)
    return b"".join(lines)


def _replaced(line: bytes, entry: _Entry, said: list[bytes], host: bytes) -> list[bytes]:
    others = [name for name in entry.hosts if name.lower() not in said]
    kept = entry.address + b" " + b" ".join(others) + b" " + KEPT + b" without " + host + b"\n"
    return ([kept] if others else []) + [REPLACED + line]


def _shared(path: str, number: int, entry: _Entry, name: str, registry: Registry) -> RefusedError:
    there = entry.address.decode("utf-8", "replace")
    return RefusedError(
        "hosts-conflict",
        f"{path} line {number} gives {name} the address {there}; "
        f"{registry.name} is at {registry.address}",
        cause="another registry that this node trusts has that name too, and one name has one "
        "address",
        cure="give both the same address (registry.address), or take the other one's trust away "
        "first: inv nodes.untrust, with its registry.host and registry.port",
    )


def _conflict(path: str, number: int, entry: _Entry, name: str, registry: Registry) -> RefusedError:
    there = entry.address.decode("utf-8", "replace")
    return RefusedError(
        "hosts-conflict",
        f"{path} line {number} gives {name} the address {there}; "
        f"the registry is at {registry.address}",
        cause="someone else made that entry",
        cure=f"remove line {number}, or replace it for as long as the trust lasts: "
        "inv nodes.trust --replace",
    )


def _left_to_dns(facts: Facts, content: bytes, registry: Registry) -> bool:
    """Whether the file says nothing of the names, and DNS gives each the plan's address."""
    names = [one.host for one in registry.each]
    entries = [_Entry.of(line) for line in _lines(content)]
    if any(entry.names(name.encode()) for entry in entries for name in names):
        return False
    return all(facts.names.by_dns(name) == frozenset({registry.address}) for name in names)
