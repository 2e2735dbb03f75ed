"""A finished transaction as ``history/<number>.json`` has it. Pure.

Its bytes are in the state folder under their digests (:mod:`agent.journal.ledger`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class RecordedChange(NamedTuple):
    """A file that was changed; ``before`` and ``after`` are digests, None for no file.

    ``mode`` is that of the file before, of a new file the one it got.
    """

    part: str
    path: str
    action: str
    before: str | None
    after: str | None
    mode: int


class RecordedFile(NamedTuple):
    """A file that was ours once the transaction was done: ``Owned`` with digests for bytes."""

    part: str
    path: str
    before: str | None
    after: str | None
    folders: tuple[str, ...] = ()
    kept: bool = False


class Record(NamedTuple):
    """What was done, and what was ours after it, registry by registry.

    ``by`` asked for it, at the address ``origin``; ``undoes`` is the number of the one that it
    takes back, for the operator's ``run``. ``starts`` tells which start of each service that it
    restarts was running before, ``waiting`` the same of those whose restart was put off.
    """

    number: int
    operation: str
    registry: str
    time: str = ""
    agent: str = ""
    by: str = ""
    origin: str = ""
    undoes: int | None = None
    run: str = ""
    changes: tuple[RecordedChange, ...] = ()
    starts: Mapping[str, str] = MappingProxyType({})
    waiting: Mapping[str, str] = MappingProxyType({})
    ledger: Mapping[str, tuple[RecordedFile, ...]] = MappingProxyType({})

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Record:
        """A record of any agent so far. Raises KeyError and TypeError for another document."""
        return cls(
            number=document["number"],
            operation=document["operation"],
            registry=document["registry"],
            time=document["time"],
            agent=document["agent"],
            by=document.get("by", ""),
            origin=document.get("from", ""),
            undoes=document.get("undoes"),
            run=document.get("run", ""),
            changes=tuple(_change(one) for one in document["changes"]),
            starts=document["starts"],
            waiting=document["waiting"],
            ledger={
                registry: tuple(_file(one) for one in files)
                for registry, files in document["ledger"].items()
            },
        )

    @property
    def digests(self) -> frozenset[str | None]:
        """Of the bytes that it needs; None stands for no file."""
        changed = {digest for one in self.changes for digest in (one.before, one.after)}
        files = (file for files in self.ledger.values() for file in files)
        return frozenset(changed.union(*((file.before, file.after) for file in files)))


def _change(one: Mapping[str, Any]) -> RecordedChange:
    mode = (one["metadata"] or one)["mode"]
    return RecordedChange(
        one["part"], one["path"], one["action"], one["before"], one["after"], mode
    )


def _file(one: Mapping[str, Any]) -> RecordedFile:
    folders, kept = tuple(one["folders"]), one.get("kept", False)
    return RecordedFile(one["part"], one["path"], one["before"], one["after"], folders, kept)
