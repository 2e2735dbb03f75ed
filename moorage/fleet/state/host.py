"""How one node stands, as a status found it: plain values, and what a person should know. Pure."""

from __future__ import annotations

import calendar
import datetime
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from agent.wire.faults import Fault
from agent.wire.metrics import gauges
from agent.wire.report import HostResult
from agent.wire.version import __version__, older
from moorage.output.ages import age
from moorage.output.said import Said, joined, said
from moorage.pki.ends import SOON, End
from moorage.registry.logins import external

if TYPE_CHECKING:
    from moorage.archive import AgentArchive
    from moorage.settings import Settings

CA, AGENT = "CA", "agent's certificate"
# What was asked in a fleet of a thousand is minutes old at most; certificates begin an hour early.
CLOCK_SECONDS = 300
# The year 9999, in seconds since 1970: no calendar here goes further.
_MOST = 253_370_764_800


@dataclass(frozen=True)
class Ours:
    """What nodes are compared with: the agent of this folder, and what replaces a CA that ends."""

    version: str
    digest: str
    next_ca: str = external.NEXT_CA

    @classmethod
    def of(cls, settings: Settings, archive: AgentArchive) -> Ours:
        return cls(__version__, archive.digest, external.next_ca(settings))

    def compared(self, version: str, digest: str) -> str:
        """What an agent of ``version`` and ``digest`` is beside ours: "same", "older", "newer", or
        "another build" of the same version."""
        if digest == self.digest:
            return "same"
        return _compared(version, self.version)


@cache
def _compared(theirs: str, ours: str) -> str:
    if older(theirs, ours):
        return "older"
    return "newer" if older(ours, theirs) else "another build"


@dataclass(frozen=True)
class ResidentAgent:
    """The agent that stays on a node. ``drift``: watching, healing, failing or stopped."""

    version: str
    digest: str
    ends: int
    drift: str
    healed: int
    last_files: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class Standing:
    """One node. Times are seconds since 1970; None: never, or not known.

    ``fault``: why it could not be asked. ``drifted``: path -> "changed" or "missing". ``busy``: the
    operation that an agent is at here; while it is, no file of ours counts as drifted.
    ``unproven``: the parts whose trust no proof shows. ``settling``: an agent was adopted and does
    not serve yet; ``unsettled``: one did not come up, and was taken away. ``clock_ahead``: by how
    many seconds its clock is ahead of this machine's.
    """

    host: str
    fault: Fault | None = None
    runtime: str = ""
    trusts: tuple[str, ...] = ()
    files: int = 0
    drifted: tuple[tuple[str, str], ...] = ()
    ca_ends: int | None = None
    applied: int | None = None
    pulled: int | None = None
    pull_seconds: float | None = None
    waiting: tuple[str, ...] = ()
    interrupted: str = ""
    busy: str = ""
    resident: ResidentAgent | None = None
    unproven: tuple[str, ...] = ()
    settling: bool = False
    unsettled: bool = False
    clock_ahead: int | None = None

    @classmethod
    def of(cls, result: HostResult, runtime: str, state: Mapping[str, Any] | None) -> Standing:
        """From a host's result and what its agent said (StatusEvent, and ``resident``).

        An agent is not believed to say what it should: one that does not is told as a fault.
        """
        if result.error is not None or state is None or "trusted" not in state:
            fault = result.error or Fault("bad-answer", "the agent reported no state")
            return cls(result.host, fault=fault)
        try:
            told = cls._told(result.host, runtime, state)
            told._require_numbers()
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as problem:
            why = f"{type(problem).__name__}: {str(problem)[:200]}"
            cure = f"inv nodes.upgrade --hosts={result.host}, then again"
            fault = Fault("bad-answer", "the agent reported no state that can be read", why, cure)
            return cls(result.host, fault=fault)
        return told

    @classmethod
    def _told(cls, host: str, runtime: str, state: Mapping[str, Any]) -> Standing:
        trusted = state["trusted"]
        files = [file for one in trusted for file in one["files"]]
        ends = [one["ca_ends"] for one in trusted if one.get("ca_ends") is not None]
        told = state.get("resident")
        last = (told or {}).get("last", {})
        pulled = state.get("pulled") or {}
        stays = state.get("stays") or {}
        # An agent of before tells the operation that it is at as one that was cut off, too.
        busy = str((state.get("holder") or {}).get("operation", ""))
        return cls(
            host,
            runtime=runtime,
            trusts=tuple(one["registry"] for one in trusted),
            files=len(files),
            # While an agent is at work its files are half-way, and their end is its own matter.
            drifted=tuple(
                (file["path"], file["state"])
                for file in files
                if file["state"] != "as-left" and not busy
            ),
            ca_ends=min(ends, default=None),
            applied=_latest(
                _since_1970(state.get("applied")), (last.get("apply") or {}).get("time")
            ),
            pulled=pulled.get("time"),
            pull_seconds=pulled.get("seconds"),
            waiting=tuple(state.get("waiting", ())),
            interrupted="" if busy else state.get("interrupted") or "",
            busy=busy,
            resident=None if told is None else _resident(told),
            unproven=tuple(
                dict.fromkeys(part["part"] for one in trusted for part in one.get("unproven", ()))
            ),
            settling=bool(stays.get("settling")),
            unsettled=stays.get("error") is not None,
            clock_ahead=state.get("clock_ahead"),
        )

    def _require_numbers(self) -> None:
        """Raises ValueError if what shall be a time or a count is none that there is."""
        resident, ahead = self.resident, self.clock_ahead
        numbers = [self.ca_ends, self.applied, self.pulled, self.pull_seconds]
        numbers += [] if resident is None else [resident.ends, resident.healed]
        numbers += [] if ahead is None else [abs(ahead)]
        for one in numbers:
            if one is not None and not 0 <= one < _MOST:
                raise ValueError(f"{one} is not a time")

    def ends(self) -> tuple[End, ...]:
        """When the certificates on the node end: each unknown if it could not be asked."""
        if self.fault is not None:
            return (End(CA, self.host, None, why=self.fault.message),)
        agent = None if self.resident is None else self.resident.ends
        found = ((CA, self.ca_ends), (AGENT, agent))
        return tuple(
            End(what, self.host, datetime.datetime.fromtimestamp(at, datetime.UTC))
            for what, at in found
            if at is not None
        )

    @property
    def clock_is_off(self) -> bool:
        """Whether the clock is so far off that an end comes at another time than is said here."""
        return abs(self.clock_ahead or 0) > CLOCK_SECONDS

    def clock_words(self) -> str:
        """How far the clock is off."""
        ahead = self.clock_ahead or 0
        minutes = f"{abs(ahead) / 60:,.0f}"
        if ahead > 0:
            return said("its clock is {minutes} min ahead of this machine's", minutes=minutes)
        return said("its clock is {minutes} min behind this machine's", minutes=minutes)

    @property
    def good(self) -> bool:
        """Whether the node could be asked, and is as it should be."""
        fights = self.resident is not None and self.resident.drift in gauges.UNHEALED
        return self.fault is None and not (self.drifted or fights or self.interrupted)

    def files_words(self) -> str:
        """Our files, as they are now."""
        if self.busy and not self.drifted:
            return said("{operation} under way", operation=self.busy)
        if not self.drifted:
            return said("{count} as left", count=self.files) if self.files else "-"
        told = (said("{path} {state}", path=path, state=Said(what)) for path, what in self.drifted)
        return said(
            "{count} of {files} drifted: {told}",
            count=len(self.drifted), files=self.files, told=joined(", ", told),
        )  # fmt: skip

    def drift_words(self, *, counted: bool = True) -> str:
        """What the agent has done about drift, if there was any; ``counted``: how often."""
        if self.resident is None:
            return ""
        resident, words = self.resident, []
        if resident.healed and counted:
            often, files = times(resident.healed), ", ".join(resident.last_files)
            words.append(said("put back {often}: {files}", often=often, files=files))
        elif resident.healed:
            words.append(said("put back since"))
        if resident.drift == "stopped":
            words.append(said("stopped: undone again and again"))
        elif resident.drift == "failing":
            words.append(said("cannot be put back: {error}", error=resident.error))
        return joined("; ", words)

    def to_do(self, ours: Ours, now: float) -> tuple[str, ...]:
        """What is left for a person to do, the next command where there is one."""
        found = [said("restart {unit}", unit=unit) for unit in self.waiting]
        if self.interrupted:
            cut = said("inv nodes.recover (an {operation} was cut off)", operation=self.interrupted)
            found.append(cut)
        resident = self.resident
        if resident is not None and resident.drift == "stopped":
            found.append(said("find out who undoes it, then inv nodes.trust"))
        elif self.drifted and (resident is None or resident.drift == "failing"):
            found.append(said("inv nodes.trust"))
        if self.unproven:
            parts = ", ".join(self.unproven)
            found.append(said("inv nodes.verify: not proven: {parts}", parts=parts))
        if self.ca_ends is not None and self.ca_ends < now + SOON.total_seconds():
            found.append(said("its CA ends: {cure}", cure=Said(ours.next_ca)))
        if resident is not None:
            if resident.ends < now + SOON.total_seconds():
                found.append(said("inv nodes.adopt: the agent's certificate ends"))
            compared = ours.compared(resident.version, resident.digest)
            if compared == "newer":
                found.append(said("update this folder (git pull): the agent is newer"))
            elif compared != "same":
                found.append(said("inv nodes.upgrade"))
        if self.clock_is_off:
            found.append(said("set the clock: {words}", words=self.clock_words()))
        if self.unsettled:
            found.append(said("inv nodes.adopt: the agent did not start"))
        elif self.settling:
            found.append(said("inv nodes.adopt: the agent does not serve yet"))
        if self.busy:
            found.append(said("busy: {operation}", operation=self.busy))
        return tuple(found)

    def agent_words(self, ours: Ours) -> str:
        if self.resident is None:
            if self.unsettled:
                return said("did not start")
            return said("settling") if self.settling else "-"
        compared = ours.compared(self.resident.version, self.resident.digest)
        version = self.resident.version
        if compared == "same":
            return version
        return said("{version}, {compared}", version=version, compared=Said(compared))


def runtime_and_state(events: Iterable[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """What a node's events tell of it: its runtime, "" for none, and its state, empty for none."""
    runtime, state = "", dict[str, Any]()
    for event in events:
        words = {key: value for key, value in event.items() if key != "event"}
        if event["event"] == "facts":
            runtime = str(words.get("runtime") or runtime)
        elif event["event"] == "status":
            state.update(words)
        elif event["event"] in ("resident", "stays"):
            state[event["event"]] = words
    return runtime, state


def _resident(told: Mapping[str, Any]) -> ResidentAgent:
    drift = told["drift"]
    return ResidentAgent(
        version=str(told["version"]),
        digest=str(told["digest"]),
        ends=int(told["certificate_ends"]),
        drift=str(drift["state"]),
        healed=int(drift["healed"]),
        last_files=tuple(drift["last_files"]),
        error=str(drift["error"]),
    )


def span(times: Sequence[float | None], now: float, *, ahead: bool = False) -> str:
    """When things were, or ``ahead`` will be, in the largest fitting unit: ``3 to 5 d``."""
    found = sorted((time - now if ahead else now - time) for time in times if time is not None)
    if not found:
        return "-"
    if ahead and found[0] <= 0:
        return said("ended")
    first, last = age(found[0]), age(found[-1])
    if first == last:
        return last
    begun = first.given["count"] if first.template == last.template else first
    return said("{first} to {last}", first=begun, last=last)


def _latest(*times: int | None) -> int | None:
    return max((one for one in times if one is not None), default=None)


def _since_1970(text: str | None) -> int | None:
    if text is None:
        return None
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def times(count: int) -> str:
    """How often, in words."""
    few = {1: "once", 2: "twice"}
    return said(few[count]) if count in few else said("{count} times", count=count)
