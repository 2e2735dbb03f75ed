"""How many nodes stand: one table, equal ones in one row, and a line that sums it up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.wire.report import DIFFERS, FAILED, HostResult
from moorage.fleet.inventory.ranges import fold
from moorage.fleet.report import FleetReport, failures
from moorage.fleet.report.waves import SMALL
from moorage.fleet.state.host import Ours, ResidentAgent, Standing, span, times
from moorage.output import Line, Parts, Table, lines
from moorage.output.ages import DAY
from moorage.output.said import Said, joined, said

if TYPE_CHECKING:
    from moorage.settings import Settings

COLUMNS = ["node", "runtime", "trusts", "our files", "agent", "ends in", "last", "to do"]


def ours(settings: Settings) -> Ours:
    """What nodes are compared with."""
    from moorage.archive import quick_archive

    return Ours.of(settings, quick_archive(settings.state))


def standings(report: FleetReport) -> tuple[Standing, ...]:
    """The nodes of a status, in the report's order."""
    return tuple(
        Standing.of(result, report.runtimes.get(result.host, ""), report.states.get(result.host))
        for result in report.hosts
    )


def judged(report: FleetReport, own: Ours) -> FleetReport:
    """The report of a status with nodes that are not as they should be as ``differs``, and each
    resident agent ``compared`` with this folder's."""
    found = standings(report)
    states: dict[str, dict[str, Any]] = {host: dict(one) for host, one in report.states.items()}
    for one in found:
        if one.resident is not None:
            compared = own.compared(one.resident.version, one.resident.digest)
            states[one.host]["resident"] = states[one.host]["resident"] | {"compared": compared}
    hosts = tuple(_judged(result, one) for result, one in zip(report.hosts, found, strict=True))
    return replace(report, hosts=hosts, states=states)


def _judged(result: HostResult, one: Standing) -> HostResult:
    if one.fault is None:
        return result if one.good else replace(result, status=DIFFERS)
    return result if result.error is not None else replace(result, status=FAILED, error=one.fault)


def parts(report: FleetReport, own: Ours) -> Parts:
    """The table, what failed grouped by its cause, and the sum."""
    now = time.time()
    found = standings(report)
    columns, rows = folded(found, own, now)
    if rows:
        yield Table(columns, rows)
    yield from lines(failures(report.hosts))
    yield Line(summary(found, own, now))


def folded(found: Sequence[Standing], own: Ours, now: float) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the nodes that could be asked, those that look alike in one row."""
    asked = [one for one in found if one.fault is None]
    groups: dict[tuple[str, ...], list[Standing]] = {}
    few = len(found) <= SMALL
    for place, one in enumerate(asked):
        # Few are told one by one; of many, those that look alike are one row.
        alone = str(place) if few else ""
        groups.setdefault((alone, *_words(one, own, now, counted=few)), []).append(one)
    rows = []
    for (_, *words), alike in groups.items():
        names = fold(one.host for one in alike)
        if not few:
            names = said("{count}: {names}", count=len(alike), names=names)
        rows.append([names, *words[:-1], *_times(alike, now), words[-1]])
    return _without_empty(COLUMNS, rows) if rows else (COLUMNS, [])


def _words(one: Standing, own: Ours, now: float, *, counted: bool) -> tuple[str, ...]:
    told = (one.files_words(), one.drift_words(counted=counted))
    files = joined("\n", (part for part in told if part))
    return (
        one.runtime,
        "\n".join(one.trusts) or "-",
        files,
        one.agent_words(own),
        joined("\n", one.to_do(own, now)),
    )


def _times(alike: Sequence[Standing], now: float) -> tuple[str, str]:
    """When certificates end, and when what was done last; two lines each, for a narrow terminal."""
    ends = {
        "CA {when}": span([one.ca_ends for one in alike], now, ahead=True),
        "agent {when}": span(
            [one.resident.ends if one.resident else None for one in alike], now, ahead=True
        ),
    }
    last = {
        "apply {when}": span([one.applied for one in alike], now),
        "pull {when}": span([one.pulled for one in alike], now),
    }
    last = {what: said("{when} ago", when=when) for what, when in last.items() if when != "-"}
    seconds = sorted(one.pull_seconds for one in alike if one.pull_seconds is not None)
    pull = "pull {when}"
    if seconds and pull in last:
        took = dict.fromkeys(f"{one:.1f}" for one in (seconds[0], seconds[-1]))
        last[pull] = said("{ago}, in {took} s", ago=last[pull], took=joined(" to ", took))
    return _lines({what: when for what, when in ends.items() if when != "-"}), _lines(last)


def _lines(told: Mapping[str, str]) -> str:
    return joined("\n", (said(what, when=when) for what, when in told.items())) or "-"


def _without_empty(
    columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Without the columns that say nothing of any node: a terminal is narrow."""
    kept = [
        place
        for place in range(len(columns))
        if place == 0 or any(row[place] not in ("", "-") for row in rows)
    ]
    return [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]


def summary(found: Sequence[Standing], own: Ours, now: float) -> str:
    """All nodes in one line."""
    asked = [one for one in found if one.fault is None]
    residents = [one.resident for one in asked if one.resident is not None]
    words: list[str] = [said("{nodes}: {counts}", nodes=_nodes(len(found)), counts=_counts(found))]
    if healed := sum(one.healed for one in residents):
        words.append(said("drift put back {often}", often=times(healed)))
    if waiting := sum(bool(one.waiting) for one in asked):
        words.append(said("a restart waits on {count}", count=waiting))
    if residents:
        words.append(_residents(residents, own))
    ends = [(one.resident.ends, one.host) for one in asked if one.resident is not None]
    ends += [(one.ca_ends, one.host) for one in asked if one.ca_ends is not None]
    if ends:
        first, host = min(ends)
        days = f"{max(first - now, 0) / DAY:.0f}"
        words.append(said("the first certificate ends in {days} d ({host})", days=days, host=host))
    return joined("; ", words)


def _counts(found: Sequence[Standing]) -> str:
    counts = Counter(_how(one) for one in found)
    order = sorted(counts, key=lambda what: what == "{count} not asked")
    return joined(", ", (said(what, count=counts[what]) for what in order))


def _how(one: Standing) -> str:
    if one.fault is not None:
        return "{count} not asked"
    return "{count} in order" if one.good else "{count} not in order"


def _residents(agents: Sequence[ResidentAgent], own: Ours) -> str:
    """How many agents stay, and how many of them are not this folder's."""
    one, many = "{count} resident agent", "{count} resident agents"
    words = [said(many if len(agents) > 1 else one, count=len(agents))]
    compared = Counter(own.compared(one.version, one.digest) for one in agents)
    words += [
        said("{count} {compared}", count=count, compared=Said(what))
        for what, count in compared.items()
        if what != "same"
    ]
    return joined(", ", words)


def _nodes(count: int) -> str:
    return said("{count} node" if count == 1 else "{count} nodes", count=count)
