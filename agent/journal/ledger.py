"""What this agent has done on the node, read from its state folder. Reads only.

/var/lib/moorage/            0700
  lock                       who is at work now
  blobs/<sha256>             the bytes of files as they were and as we left them
  active/intent.json         a transaction under way, or one that was cut off
  history/<number>.json      the finished ones; the newest carries the whole ledger
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from agent.edit.change import Ledgers, Owned
from agent.journal.record import Record, RecordedFile
from agent.wire.faults import AgentError

STATE = "/var/lib/moorage"
Read = TypeVar("Read")


@dataclass(frozen=True)
class Store:
    """The state folder below a root."""

    root: str = "/"

    @cached_property
    def folder(self) -> Path:
        return Path(self.root, STATE.lstrip("/"))

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def active(self) -> Path:
        return self.folder / "active"

    @property
    def history(self) -> Path:
        return self.folder / "history"

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest

    def read_blob(self, digest: str | None) -> bytes | None:
        """A kept file's bytes. A damaged one is an error, never a guess."""
        if digest is None:
            return None
        try:
            content = self.blob(digest).read_bytes()
        except FileNotFoundError:
            content = None
        if content is None or digest_of(content) != digest:
            raise AgentError(
                "state-damaged",
                f"{self.blob(digest)} is missing or damaged",
                cause="the agent's notes of what stood there before were changed from outside",
                cure=f"restore {STATE} from a backup, or put the files right by hand",
            )
        return content

    def numbers(self) -> list[int]:
        """The finished transactions, oldest first."""
        try:
            names = [path.stem for path in self.history.iterdir() if path.suffix == ".json"]
        except OSError:
            return []
        return sorted(int(name) for name in names if name.isdigit())

    def records(self) -> Iterator[Record]:
        """The finished transactions, newest first."""
        for number in reversed(self.numbers()):
            yield self._record(number)

    def useless(self) -> Iterator[int]:
        """The older records that cannot be read, if by the newest one nothing is ours.

        They can put nothing back any more, and would keep every later apply from being decided.
        Raises AgentError (``state-damaged``) if the newest one cannot be read.
        """
        numbers = self.numbers()
        if not numbers or self._record(numbers[-1]).ledger:
            return
        for number in numbers[:-1]:
            try:
                self._record(number)
            except AgentError:
                yield number

    def pending(self) -> dict[str, Any] | None:
        """The transaction that was under way when an agent last stopped, if any."""
        path = self.active / "intent.json"
        try:
            return self._read(path, dict) if os.path.exists(path) else None  # noqa: PTH110  (or no right)
        except AgentError:
            if os.path.exists(path):  # noqa: PTH110
                raise
            return None  # it became history between the two

    @property
    def readable(self) -> bool:
        """Whether this user may look into the folder; true if there is none."""
        return not os.path.isdir(self.folder) or os.access(  # noqa: PTH112
            self.folder, os.R_OK | os.X_OK, effective_ids=True
        )

    def ledgers(self) -> Ledgers:
        """What is ours on this node now, registry by registry."""
        newest = next(self.records(), None)
        return {} if newest is None else self.ledgers_of(newest)

    def ledgers_of(self, record: Record, only: str | None = None) -> Ledgers:
        """What was ours once a finished transaction was done; ``only``: for that registry."""
        return {
            registry: {file.path: self._owned(file) for file in files}
            for registry, files in record.ledger.items()
            if only in (None, registry)
        }

    def waiting(self) -> Mapping[str, str]:
        """Services whose restart was put off, and which start of each was running then."""
        newest = next(self.records(), None)
        return newest.waiting if newest else {}

    def _owned(self, file: RecordedFile) -> Owned:
        before, after = self.read_blob(file.before), self.read_blob(file.after)
        return Owned(file.part, file.path, before, after, file.folders, file.kept)

    def _record(self, number: int) -> Record:
        return self._read(self.history / f"{number:06}.json", Record.of)

    def _read(self, path: Path, kind: Callable[[dict[str, Any]], Read]) -> Read:
        try:
            document = json.loads(path.read_bytes())
            if document["version"] != 1:
                raise ValueError(f"version {document['version']}")
            return kind(document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise AgentError(
                "state-damaged",
                f"{path} cannot be read: {problem}",
                cause="it was changed from outside, or a newer agent wrote it",
                cure=f"restore {STATE} from a backup, or use the newer agent",
            ) from None


def as_json(ledgers: Ledgers) -> dict[str, Any]:
    """Ledgers as a record keeps them: digests in place of bytes."""
    return {
        registry: [
            {
                "part": owned.part,
                "path": owned.path,
                "before": None if owned.before is None else digest_of(owned.before),
                "after": None if owned.after is None else digest_of(owned.after),
                "folders": list(owned.folders),
                **({"kept": True} if owned.kept else {}),
            }
            for owned in ledger.values()
        ]
        for registry, ledger in ledgers.items()
        if ledger
    }


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_at(path: Path) -> str | None:
    """The digest of a file's bytes; None if there is no file."""
    try:
        return digest_of(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
