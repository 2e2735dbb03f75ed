"""What the page shows, as values: sections that sources replace and the page shows.

The nodes are ``Standing``s, as ``nodes.status`` and ``nodes.watch`` have them, folded by the same
function. A source that fails leaves its section with the fault in the place of rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.wire.faults import Fault
from moorage.errors import MoorageError
from moorage.fleet.inventory.ranges import fold
from moorage.fleet.state import table
from moorage.fleet.state.host import Ours, Standing
from moorage.output.said import said

if TYPE_CHECKING:
    from moorage.web.history import Point

SECTIONS = (
    "nodes", "actions", "registry", "history", "images", "users", "rollouts", "pods",
)  # fmt: skip


@dataclass(frozen=True)
class StoryTrouble:
    """Why something could not be looked at, or is not well: what it befell, and the fault.

    ``fix``: what the page's own fix of it is known by, "" if the page has none; ``about``: who it
    befell, if the fault's message names them. Another language tells the fault by its code.
    """

    what: str
    fault: Fault
    fix: str = ""
    about: str = ""


def trouble(what: str, problem: MoorageError) -> StoryTrouble:
    """Why ``what`` failed."""
    return StoryTrouble(what, problem.fault)


@dataclass(frozen=True)
class Plot:
    """A number over time; ``unit`` is "" if the title says what is counted."""

    title: str
    unit: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Section:
    """A table of the page. ``seen``: seconds since 1970, None before the first look; ``note``: one
    line above it. ``troubles`` come first, as they are what to do; ``offers``: nodes that the form
    of the section offers to verify; ``facts``: lines below the note, each a label and its value."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""
    troubles: tuple[StoryTrouble, ...] = ()
    seen: float | None = None
    offers: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    plots: tuple[Plot, ...] = ()


def failed(problem: MoorageError) -> Section:
    """A section that could not be looked at."""
    return Section(troubles=(trouble("", problem),), seen=time.time())


class Story:
    """The sections as they are now; sources write from threads, the page reads."""

    def __init__(self, own: Ours, nodes: int, tell: Callable[[str], None]) -> None:
        """``tell`` gets the name of a section that changed, in the thread that changed it."""
        self.version = 0
        self._own = own
        self._expected = nodes
        self._tell = tell
        self._guard = threading.Lock()
        self._standings: dict[str, Standing] = {}
        self._sections: dict[str, Section] = {}

    def hear(self, node: Standing) -> None:
        """One node as it is now."""
        with self._guard:
            if self._standings.get(node.host) == node:
                return
            self._standings[node.host] = node
            self.version += 1
        self._tell("nodes")

    def put(self, name: str, section: Section) -> None:
        """A section as it is now."""
        with self._guard:
            before = self._sections.get(name)
            if before is not None and replace(before, seen=section.seen) == section:
                return
            self._sections[name] = section
            self.version += 1
        self._tell(name)

    def standings(self) -> tuple[Standing, ...]:
        with self._guard:
            return tuple(self._standings.values())

    def section(self, name: str, now: float) -> Section:
        """The section of that name, empty if nobody has looked yet."""
        if name == "nodes":
            return nodes(self.standings(), self._expected, self._own, now)
        with self._guard:
            return self._sections.get(name, Section())

    def to_json(self, now: float) -> dict[str, Any]:
        """Every node's standing in short, and the sum: what programs compare."""
        found = self.standings()
        return {
            "summary": table.summary(found, self._own, now),
            "nodes": {
                one.host: {"in_order": one.good, "asked": one.fault is None} for one in found
            },
        }


def nodes(found: Sequence[Standing], expected: int, own: Ours, now: float) -> Section:
    """The nodes as the terminal shows them: alike ones in one row, silent ones by their cause."""
    if not found:
        asking = said("asking {count} nodes", count=expected)
        return Section(note=asking if expected else said("no nodes are named here"))
    columns, rows = table.folded(found, own, now)
    return Section(
        tuple(columns),
        tuple(tuple(row) for row in rows),
        table.summary(found, own, now),
        silent(found),
        now,
    )


def silent(found: Sequence[Standing]) -> tuple[StoryTrouble, ...]:
    """The nodes that could not be asked, those of one cause in one."""
    groups: dict[Fault, list[str]] = {}
    for one in found:
        if one.fault is not None:
            message = one.fault.message.replace(one.host, "HOST")
            cure = one.fault.cure.replace(one.host, "HOST")
            alike = replace(one.fault, message=message, cure=cure, host="", path="")
            groups.setdefault(alike, []).append(one.host)
    return tuple(_silent(hosts, fault) for fault, hosts in groups.items())


def _silent(hosts: Sequence[str], fault: Fault) -> StoryTrouble:
    """Nodes of one cause; the cure can be copied for all of them at once."""
    names = fold(hosts)
    message = fault.message.replace("HOST", names) if len(hosts) == 1 else fault.message
    told = replace(fault, message=message, cure=fault.cure.replace("HOST", names))
    return StoryTrouble("" if names in message else names, told, about=names)


def from_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Section:
    """A section that was looked at just now."""
    kept = tuple(tuple(row) for row in rows)
    return Section(tuple(columns), kept, note, (), time.time())


def from_groups(groups: Sequence[Mapping[str, Any]], fixes: Sequence[str] = ()) -> Section:
    """Why pods cannot pull: a trouble per cause, with the cure to copy. ``fixes``: what the page's
    fix of each is known by, "" if there is none."""
    troubles = tuple(
        StoryTrouble(
            f"{', '.join(one['pods'][:5])}{' …' if len(one['pods']) > 5 else ''}",
            Fault(str(one.get("code", "")), str(one["title"]), str(one["cause"]), str(one["cure"])),
            fix,
        )
        for one, fix in zip(groups, [*fixes, *[""] * (len(groups) - len(fixes))], strict=True)
    )
    return Section((), (), "" if troubles else "every pod can pull", troubles, time.time())
