"""A rollout in waves: a canary first, then growing waves, and a stop when too much fails. Pure.

The words are those of the field: https://sre.google/workbook/canarying-releases/; pyinfra and
Ansible call the second part ``serial`` batches with ``max_fail_percentage``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from moorage.errors import Refused

_T = TypeVar("_T")
# Up to so many hosts a rollout is one wave, unless the user says otherwise.
SMALL = 8
DEFAULT_CANARY = 1
DEFAULT_WAVES = "10%,50%,100%"
DEFAULT_MAX_FAILURES = "10%"


@dataclass(frozen=True)
class Policy:
    """How careful a rollout is. ``None``: as the number of hosts suggests.

    ``canary``: hosts that go first and must all succeed. ``waves``: cumulative shares of the rest
    or counts, the last ``100%``. ``max_failures``: a count or a share of all hosts; one more stops.
    """

    canary: int | None = None
    waves: str | None = None
    max_failures: str | None = None


ALL_AT_ONCE = Policy(canary=0, waves="100%", max_failures="100%")


@dataclass(frozen=True)
class Wave:
    """Hosts from ``start`` up to ``end`` of the list."""

    title: str
    start: int
    end: int
    canary: bool = False

    def of(self, hosts: Sequence[_T]) -> Sequence[_T]:
        return hosts[self.start : self.end]


@dataclass(frozen=True)
class Schedule:
    """The waves of one rollout; ``allowed`` failures in all of it, None for any number."""

    waves: tuple[Wave, ...]
    allowed: int | None

    def verdict(self, wave: Wave, failed_in_wave: int, failed: int) -> str:
        """Why the rollout has to stop now, or "" to go on."""
        if wave.canary and failed_in_wave:
            return "the canary failed"
        if self.allowed is not None and failed > self.allowed:
            return f"{failed} hosts failed, {self.allowed} may"
        return ""


def schedule(policy: Policy, hosts: int) -> Schedule:
    """The waves for so many hosts. Raises Refused for words that make no schedule.

    Up to ``SMALL`` hosts without a word of the user: one wave, and no failure stops the others.
    """
    careful = hosts > SMALL or policy != Policy()
    canary = policy.canary
    if canary is None:
        canary = DEFAULT_CANARY if hosts > SMALL else 0
    if not 0 <= canary <= max(hosts, 0):
        raise _refused(
            "canary", str(canary), f"there are {hosts} hosts", "--canary=1, or 0 for none"
        )
    text = policy.waves
    if text is None:
        text = DEFAULT_WAVES if hosts > SMALL else "100%"
    ends = _ends(text, hosts - canary)
    waves = [Wave("canary", 0, canary, canary=True)] if canary else []
    start = canary
    for end in (canary + end for end in ends):
        if end > start:
            waves.append(Wave("", start, end))
            start = end
    titled = tuple(
        one if one.canary else Wave(f"wave {place} of {len(waves)}", one.start, one.end)
        for place, one in enumerate(waves, 1)
    )
    allowed = None
    if careful or policy.max_failures is not None:
        allowed = _allowed(policy.max_failures or DEFAULT_MAX_FAILURES, hosts)
    return Schedule(titled, allowed)


def _ends(text: str, hosts: int) -> list[int]:
    """``10%,50%,100%`` -> where each wave ends among ``hosts``. Counts are cumulative as well."""
    cure = f"--waves={DEFAULT_WAVES}: growing shares, the last of them 100%"
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not re.fullmatch(r"[0-9]{1,6}%?", word):
            raise _refused("waves", text, f"{word!r} is neither a count nor a percentage", cure)
    if words[-1] != "100%":
        raise _refused("waves", text, f"it ends with {words[-1]}: some hosts would be left", cure)
    shares = [int(word[:-1]) for word in words if word.endswith("%")]
    counts = [int(word) for word in words if not word.endswith("%")]
    for row in (shares, counts):
        if any(one >= other for one, other in itertools.pairwise(row)) or 0 in row:
            raise _refused("waves", text, "each must be larger than the one before", cure)
    ends = [
        math.ceil(hosts * int(word[:-1]) / 100) if word.endswith("%") else min(int(word), hosts)
        for word in words
    ]
    if any(one > other for one, other in itertools.pairwise(ends)):
        raise _refused("waves", text, f"of {hosts} hosts, these waves would shrink", cure)
    return ends


def _allowed(text: str, hosts: int) -> int:
    match = re.fullmatch(r"([0-9]{1,6})(%?)", text.strip())
    if match is None or (match[2] and int(match[1]) > 100):
        raise _refused(
            "max-failures", text, "neither a count nor a percentage", "--max-failures=3, or 10%"
        )
    number = int(match[1])
    return hosts * number // 100 if match[2] else number


def _refused(option: str, text: str, cause: str, cure: str) -> Refused:
    return Refused(
        "bad-waves", f"invalid --{option}={text}", cause=cause, cure=f"write it as {cure}"
    )
