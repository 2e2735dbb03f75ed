"""What an agent says: events while it works, one result at the end. Both sides share this format.

Each event is one JSON object a line. ``HostResult`` is the one shape in which a host's outcome is
told everywhere: in the agent's last event, in ``--json`` documents, in tables and in reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from agent.wire.faults import Fault

CHANGED = "changed"
UNCHANGED = "unchanged"
FAILED = "failed"
UNREACHABLE = "unreachable"
ROLLED_BACK = "rolled-back"
DIFFERS = "differs"  # a look alone: what is there is not what the plan says
NOT_PROVEN = 3  # exit code: done, but not proven
STATUSES = (CHANGED, UNCHANGED, FAILED, UNREACHABLE, ROLLED_BACK, DIFFERS)


class FileChange(NamedTuple):
    """One changed path and what happened to it: ``created``, ``edited`` or ``removed``."""

    path: str
    action: str


class Unproven(NamedTuple):
    """A part of the node whose trust no proof shows, and because of what."""

    part: str
    because: str


@dataclass(frozen=True)
class HostResult:
    """The outcome on one host.

    ``status`` is one of ``STATUSES``. ``verified`` is true if every part in use was proven, false
    if a proof failed, None if nothing was to be proven or something is ``unproven``.
    ``pull_seconds`` is the wall time of the proving pulls in seconds, None if none was made.
    ``stopped``: services and containers that ran before a restart and do not now.
    """

    host: str
    status: str
    changes: tuple[FileChange, ...] = field(default=())
    restarts: tuple[str, ...] = field(default=())
    verified: bool | None = None
    pull_seconds: float | None = None
    error: Fault | None = None
    stopped: tuple[str, ...] = field(default=())
    unproven: tuple[Unproven, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return self.status in (CHANGED, UNCHANGED)

    @property
    def proven(self) -> bool:
        """Whether nothing that this operation was to prove is left without its proof."""
        return self.ok and not self.unproven

    @property
    def exit_code(self) -> int:
        """0: done and proven; 1: failed; 3: done, but not proven (2 is for a refusal)."""
        if not self.ok:
            return 1
        return 0 if self.proven else NOT_PROVEN

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON types; the keys are the field names."""
        return {
            **vars(self),
            "changes": [change._asdict() for change in self.changes],
            "restarts": list(self.restarts),
            "stopped": list(self.stopped),
            "error": None if self.error is None else self.error.to_json(),
            "unproven": [one._asdict() for one in self.unproven],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> HostResult:
        """The reverse of :meth:`to_json`.

        Raises ValueError where a key is missing, unknown or the status is not one of ``STATUSES``.
        """
        try:
            error = document["error"]
            result = cls(
                host=document["host"],
                status=document["status"],
                changes=tuple(FileChange(**change) for change in document["changes"]),
                restarts=tuple(document["restarts"]),
                verified=document["verified"],
                pull_seconds=document["pull_seconds"],
                error=None if error is None else Fault(**error),
                stopped=tuple(document.get("stopped", ())),  # earlier agents do not tell
                # Agents of earlier releases do not tell it.
                unproven=tuple(Unproven(**one) for one in document.get("unproven", ())),
            )
        except (KeyError, TypeError) as problem:
            raise ValueError(f"not a host result: {problem}") from None
        if result.status not in STATUSES:
            raise ValueError(f"not a host status: {result.status!r}")
        return result


class FactsEvent(NamedTuple):
    """What was found: ``runtime`` in words, such as ``containerd 1.7.24``, and the rest by name."""

    host: str
    runtime: str
    python: str
    agent: str


class ChangeEvent(NamedTuple):
    """A file that was changed, or with ``--dry-run`` would be; ``diff`` is a unified diff."""

    path: str
    action: str
    diff: str


class RestartEvent(NamedTuple):
    """A service about to be restarted; ``stops``: what that stops beside it, in words."""

    unit: str
    stops: tuple[str, ...] = ()


class VerifyEvent(NamedTuple):
    """A proof made: ``step`` is ``registry``, ``cri``, ``pull``, or ``files``: TLS with the
    certificates that the program in ``detail`` reads."""

    step: str
    ok: bool
    seconds: float
    detail: str = ""


class NoteEvent(NamedTuple):
    """Something a person should know that is no failure."""

    message: str


class StatusEvent(NamedTuple):
    """What this agent keeps on the node: per registry its files, ``as-left`` or ``changed`` since,
    and what of it was not proven last.

    ``interrupted`` is the operation an earlier agent left half-way; ``holder`` who is at work now;
    ``applied`` when an apply last changed something (UTC); ``pulled`` the last proving pull;
    ``kept`` the files of ours that outlive their registry because others rely on them; ``time`` the
    node's clock, in seconds since 1970.
    """

    trusted: tuple[dict[str, Any], ...]
    waiting: tuple[str, ...]
    interrupted: str | None
    holder: dict[str, Any] | None
    applied: str | None = None
    pulled: dict[str, Any] | None = None
    kept: tuple[str, ...] = ()
    time: int = 0


class HistoryEvent(NamedTuple):
    """What was done here, newest first: `number`, `time` (UTC), `operation`, `registry`, `by`,
    `from` (an address), `agent`, `changes` [{`path`, `action`}], `restarts`, `undone_by`.
    """

    records: tuple[dict[str, Any], ...]


class ExplainEvent(NamedTuple):
    """Each part's strategies: `part`, `strategy`, `applies`, `why`."""

    findings: tuple[dict[str, Any], ...]


class ImagesEvent(NamedTuple):
    """What images the node's runtimes have: references, digests and ids, as they name them.

    ``unasked``: runtimes that could not be asked, `part` and `because`; any image may be theirs.
    ``time`` is the node's clock, in seconds since 1970.
    """

    names: tuple[str, ...]
    unasked: tuple[dict[str, Any], ...]
    time: int


class RequestEvent(NamedTuple):
    """A node asks to become resident: ``request`` is its certificate request in PEM.

    ``time`` is the node's clock, in seconds since 1970.
    """

    id: str
    request: str
    time: int


class StaysEvent(NamedTuple):
    """What became of the wish that the agent stay; ``error`` where it does not.

    ``settling``: its adoption is on the disk, and its service has not served yet.
    """

    error: Fault | None = None
    settling: bool = False


class ResultEvent(NamedTuple):
    """The outcome; always the last event."""

    result: HostResult


Event = Union[
    FactsEvent,
    ChangeEvent,
    RestartEvent,
    VerifyEvent,
    NoteEvent,
    StatusEvent,
    HistoryEvent,
    ExplainEvent,
    ImagesEvent,
    RequestEvent,
    StaysEvent,
    ResultEvent,
]


KINDS: dict[type[Event], str] = {
    FactsEvent: "facts",
    ChangeEvent: "change",
    RestartEvent: "restart",
    VerifyEvent: "verify",
    NoteEvent: "note",
    StatusEvent: "status",
    HistoryEvent: "history",
    ExplainEvent: "explain",
    ImagesEvent: "images",
    RequestEvent: "request",
    StaysEvent: "stays",
    ResultEvent: "result",
}


def event_to_json(event: Event) -> dict[str, Any]:
    """An event as the one JSON object of its line."""
    if isinstance(event, ResultEvent):
        body = event.result.to_json()
    else:
        body = {name: _plain(value) for name, value in event._asdict().items()}
    return {"event": KINDS[type(event)], **body}


def _plain(value: Any) -> Any:
    return value.to_json() if isinstance(value, Fault) else value
