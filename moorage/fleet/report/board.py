"""What people see of a rollout while it runs: hosts by state, the slowest, what they do. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 4


@dataclass
class Board:
    """The state of all hosts. Times are seconds of one monotonic clock."""

    title: str
    total: int
    wave: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    # host under way -> since when, and the last word about it
    at_work: dict[str, tuple[float, str]] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def begun(self, name: str, now: float) -> None:
        self.at_work[name] = (now, "connecting")

    def heard(self, name: str, words: str, now: float) -> None:
        since, _ = self.at_work.get(name, (now, ""))
        self.at_work[name] = (since, words)

    def ended(self, name: str, status: str) -> None:
        self.at_work.pop(name, None)
        self.counts[status] = self.counts.get(status, 0) + 1

    def lines(self, now: float) -> list[str]:
        """A line of numbers, then the hosts that take longest, the slowest first."""
        waiting = self.total - self.done - len(self.at_work)
        numbers = [f"{count} {status}" for status, count in sorted(self.counts.items())]
        numbers += [f"{len(self.at_work)} under way"] if self.at_work else []
        numbers += [f"{waiting} waiting"] if waiting else []
        head = " · ".join(part for part in (self.title, self.wave, *numbers) if part)
        slowest = sorted(self.at_work.items(), key=lambda item: item[1][0])[:_SHOWN]
        width = max((len(name) for name, _ in slowest), default=0)
        return [head] + [
            f"{name:<{width}}  {now - since:4.0f} s  {words}" for name, (since, words) in slowest
        ]
