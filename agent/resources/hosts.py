"""The hosts file: one line of ours, marked, that gives the registry's name its address.

An entry that is right already is left alone, a different one is refused, or with ``replace``
turned into a comment that ``strip`` turns back.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from agent.facts import Facts
from agent.faults import RefusedError
from agent.plan import Plan, Registry
from agent.resources import Finding, Ledger, Owned, Proposal, change, readable

PART = "hosts"
PATH = "/etc/hosts"
MARK = b"# moorage"
KEPT = b"# moorage kept"
REPLACED = b"# moorage replaced: "


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """One entry with the plan's address; none where the plan leaves names to DNS."""
    if plan.registry.address is None:
        return Proposal(absent="the plan names no address: names are left to DNS")
    file = facts.tree.read(PATH)
    content = readable(file)
    after = _with_entry(content or b"", plan.registry, plan.options.replace)
    return Proposal(changes=change(PART, file, after))


def explain(facts: Facts, plan: Plan) -> tuple[Finding, ...]:
    """Whether the hosts file needs our entry, has one, or has somebody else's."""
    try:
        proposal = propose(facts, plan, {})
    except RefusedError as problem:
        return (Finding(PART, "refused", True, f"{problem} ({problem.code})"),)
    if proposal.absent:
        return (Finding(PART, "left-to-dns", True, proposal.absent),)
    registry = plan.registry
    what = f"{PATH} {'needs' if proposal.changes else 'has'} {registry.address} {registry.host}"
    return (Finding(PART, "entry" if proposal.changes else "entry-there", True, what),)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without our line, and with what it replaced."""
    host = registry.host.encode()
    kept = []
    for line in _lines(content):
        if _is_ours(line, host):
            continue
        was = line[len(REPLACED) :] if line.startswith(REPLACED) else b""
        kept.append(was if _Entry.of(was).names(host) else line)
    stripped = b"".join(kept)
    return None if owned.before is None and not stripped else stripped


@dataclass(frozen=True)
class _Entry:
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


def _is_ours(line: bytes, host: bytes) -> bool:
    """A line we added: our entry, or the other names of an entry we replaced."""
    rest = line.rstrip()
    if rest.endswith(KEPT + b" without " + host):
        return True
    return rest.endswith(MARK) and _Entry.of(line).hosts == (host,)


def _with_entry(content: bytes, registry: Registry, replace: bool) -> bytes:
    address = registry.address or ""
    host = registry.host.encode()
    ours = address.encode() + b"\t" + host + b" " + MARK + b"\n"
    lines: list[bytes] = []
    found = False
    for number, line in enumerate(_lines(content), 1):
        entry = _Entry.of(line)
        if not entry.names(host):
            lines.append(line)
        elif entry.is_at(address):
            found = True
            lines.append(line)
        elif _is_ours(line, host):
            if not found:
                lines.append(ours)
            found = True
        elif replace:
            lines.extend(_replaced(line, entry, host))
        else:
            raise _conflict(number, entry, registry)
    if not found:
        # Before an unterminated last line, so that taking ours away gives back the same bytes.
        place = len(lines) - 1 if lines and not lines[-1].endswith(b"\n") else len(lines)
        lines.insert(place, ours)
    return b"".join(lines)


def _replaced(line: bytes, entry: _Entry, host: bytes) -> list[bytes]:
    others = [name for name in entry.hosts if name.lower() != host]
    kept = entry.address + b" " + b" ".join(others) + b" " + KEPT + b" without " + host + b"\n"
    return ([kept] if others else []) + [REPLACED + line]


def _conflict(number: int, entry: _Entry, registry: Registry) -> RefusedError:
    there = entry.address.decode("utf-8", "replace")
    return RefusedError(
        "hosts-conflict",
        f"{PATH} line {number} gives {registry.host} the address {there}, "
        f"the plan {registry.address}",
        cause="someone else made that entry",
        cure=f"remove line {number}, or replace it for as long as the trust lasts: --replace",
    )
