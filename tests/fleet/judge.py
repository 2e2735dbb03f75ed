"""Whether what a report says of a node is true: held against what stands on the node afterwards."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.wire.report import CHANGED, ROLLED_BACK, UNCHANGED, UNREACHABLE

# How a node stands: without the trust as it was at first, with it, or with a journal left open.
WITHOUT, WITH, HALF, ODD = "without", "with", "half", "odd"
# Faults that leave open which of two clean states it is, and one that may leave the journal too.
FINISHES = frozenset(("connection-lost", "agent-silent", "stopped-midway"))
CUT_OFF = frozenset(("agent-died",))


class Place(Protocol):
    """A node, real or simulated. ``line``: nodes of one line look alike with the same trust."""

    name: str
    line: str
    original: str

    def look(self) -> str: ...
    def unfinished(self) -> bool: ...
    def trusts(self) -> bool: ...
    def starts(self) -> int: ...


def code_of(result: dict[str, Any]) -> str:
    """The code of its error, else its status."""
    return str(result["error"]["code"] if result["error"] else result["status"])


@dataclass
class Judge:
    """``problems``: each thing that was not as it was said, in a line."""

    places: dict[str, Place]
    problems: list[str] = field(default_factory=list)
    _with: dict[str, str] = field(default_factory=dict)

    def state(self, name: str) -> str:
        place = self.places[name]
        if place.unfinished():
            return HALF
        now = place.look()
        if now == place.original:
            return WITHOUT
        if place.line not in self._with and place.trusts():
            self._with[place.line] = now
        return WITH if now == self._with.get(place.line) else ODD

    def states(self, names: Sequence[str]) -> dict[str, str]:
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(names, pool.map(self.state, names), strict=True))

    def say(self, problem: str) -> None:
        self.problems.append(problem)
        print(f"LOST {problem}", flush=True)

    def results(
        self,
        title: str,
        results: Sequence[dict[str, Any]],
        before: dict[str, str],
        goal: str,
    ) -> dict[str, str]:
        """Holds each result against its node. ``before``: how all stood. Returns how they stand."""
        now = self.states(list(before))
        for result in results:
            name = str(result["host"])
            allowed = self._allowed(result, before[name], goal)
            if now[name] not in allowed:
                self.say(
                    f"{title}: {name} is said to be {code_of(result)} and stands {now[name]}, "
                    f"{before[name]} before; {result['error']}"
                )
            files = {str(one["path"]) for one in result["changes"]}
            if result["status"] == CHANGED and not files:
                self.say(f"{title}: {name} is said to be changed in no file")
            if result["status"] == UNCHANGED and result["restarts"]:
                self.say(f"{title}: {name} is said to be unchanged and restarted")
            proved = result["verified"] or result["unproven"]
            if now[name] == goal == WITH and result["error"] is None and not proved:
                self.say(f"{title}: {name} is said to be {code_of(result)} and was not proved")
        told = {str(result["host"]) for result in results}
        for name, state in now.items():  # what a killed operator tells nothing of is whole as well
            if name not in told and state not in (WITH, WITHOUT):
                self.say(f"{title}: {name} was told nothing of, and stands {state}")
        return now

    def _allowed(self, result: dict[str, Any], before: str, goal: str) -> set[str]:
        code = code_of(result)
        if result["status"] in (CHANGED, UNCHANGED):
            return {goal}
        if code in FINISHES:
            return {WITH, WITHOUT}
        if code in CUT_OFF:
            return {WITH, WITHOUT, HALF}
        if code == "rollback-failed":
            return {WITHOUT if goal == WITH else WITH, HALF}
        if result["status"] == ROLLED_BACK:
            return {WITHOUT if goal == WITH else WITH}
        assert result["status"] == UNREACHABLE or result["error"], result
        return {before}  # all else says that nothing was changed

    def report(self, title: str, names: Sequence[str], report: dict[str, Any], stem: Path) -> None:
        """Each host once and in order, and the same in the JSON file and on the HTML page."""
        told = [str(one["host"]) for one in report.get("hosts", ())]
        if told != list(names):
            missing = sorted(set(names) - set(told))
            twice = [name for name, count in Counter(told).items() if count > 1]
            self.say(f"{title}: the report lacks {missing}, has {twice} twice")
        written = json.loads(stem.with_suffix(".json").read_text())
        if written["hosts"] != report.get("hosts"):
            self.say(f"{title}: the JSON file is another report")
        page = stem.with_suffix(".html").read_text()
        rows = re.findall(r'<tr><td>([^<]+)<td class="([^"]+)">', page)
        if rows != [(one["host"], one["status"]) for one in report.get("hosts", ())]:
            self.say(f"{title}: the HTML page is another report")

    def once(self, title: str, results: Sequence[dict[str, Any]]) -> None:
        """No host has two results in one run."""
        for name, count in Counter(str(one["host"]) for one in results).items():
            if count > 1:
                self.say(f"{title}: {name} has {count} results")
