"""How many nodes stand: one table, equal ones in one row, and a line that sums it up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.wire.report import DIFFERS
from moorage.fleet.inventory.ranges import fold
from moorage.fleet.report import FleetReport, failures
from moorage.fleet.report.waves import SMALL
from moorage.fleet.state.host import DAY, Ours, Standing, span, times
from moorage.output import Line, Parts, Table, lines

if TYPE_CHECKING:
    from moorage.settings import Settings

COLUMNS = ["node", "runtime", "trusts", "our files", "agent", "ends in", "last", "to do"]


def ours(settings: Settings) -> Ours:
    """The agent of this folder."""
    from moorage.archive import quick_archive

    return Ours.of(quick_archive(settings.state))


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
    hosts = tuple(
        result if one.good or one.fault is not None else replace(result, status=DIFFERS)
        for result, one in zip(report.hosts, found, strict=True)
    )
    return replace(report, hosts=hosts, states=states)


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
            names = f"{len(alike)}: {names}"
        rows.append([names, *words[:-1], *_times(alike, now), words[-1]])
    return _without_empty(COLUMNS, rows) if rows else (COLUMNS, [])


def _words(one: Standing, own: Ours, now: float, *, counted: bool) -> tuple[str, ...]:
    told = (one.files_words(), one.drift_words(counted=counted))
    files = "\n".join(part for part in told if part)
    return (
        one.runtime,
        "\n".join(one.trusts) or "-",
        files,
        one.agent_words(own),
        "\n".join(one.to_do(own, now)),
    )


def _times(alike: Sequence[Standing], now: float) -> tuple[str, str]:
    """When certificates end, and when what was done last; two lines each, for a narrow terminal."""
    ends = {
        "CA": span([one.ca_ends for one in alike], now, ahead=True),
        "agent": span(
            [one.resident.ends if one.resident else None for one in alike], now, ahead=True
        ),
    }
    last = {
        "apply": span([one.applied for one in alike], now),
        "pull": span([one.pulled for one in alike], now),
    }
    last = {what: f"{when} ago" for what, when in last.items() if when != "-"}
    seconds = sorted(one.pull_seconds for one in alike if one.pull_seconds is not None)
    if seconds and "pull" in last:
        took = list(dict.fromkeys(f"{one:.1f}" for one in (seconds[0], seconds[-1])))
        last["pull"] += f", in {' to '.join(took)} s"
    return _lines({what: when for what, when in ends.items() if when != "-"}), _lines(last)


def _lines(told: Mapping[str, str]) -> str:
    return "\n".join(f"{what} {words}" for what, words in told.items()) or "-"


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
    counts = Counter("in order" if one.good else "not in order" for one in asked)
    counts["not asked"] = len(found) - len(asked)
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    words = [f"{_nodes(len(found))}: {', '.join(parts)}"]
    if healed := sum(one.resident.healed for one in asked if one.resident):
        words.append(f"drift put back {times(healed)}")
    if waiting := sum(bool(one.waiting) for one in asked):
        words.append(f"a restart waits on {waiting}")
    residents = [one for one in asked if one.resident is not None]
    if residents:
        compared = Counter(
            own.compared(one.resident.version, one.resident.digest)
            for one in residents
            if one.resident
        )
        others = [f"{count} {what}" for what, count in compared.items() if what != "same"]
        words.append(
            f"{len(residents)} resident agent{'s' if len(residents) > 1 else ''}"
            + (f", {', '.join(others)}" if others else "")
        )
    ends = [(one.resident.ends, one.host) for one in residents if one.resident is not None]
    ends += [(one.ca_ends, one.host) for one in asked if one.ca_ends is not None]
    if ends:
        first, host = min(ends)
        words.append(f"the first certificate ends in {max(first - now, 0) / DAY:.0f} d ({host})")
    return "; ".join(words)


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"
