"""What ``ssh -G`` answered before, kept on disk for as long as it must answer the same.

Its answer follows from the files it reads, its version, the user and the question. If more decides
(a program that is run, an address of this machine, a name server, the environment), it is not kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage.fleet.openssh.files import ConfigFile, ConfigLine
from moorage.fleet.openssh.program import Query

_VERSION = 1
# Conditions that are decided by more than the files and the question.
_OUTSIDE = re.compile(r"\b(exec|localnetwork)\b", re.IGNORECASE)
# A file of so many answers is 8 MB; a run about more hosts keeps the first.
_MOST = 10_000
# One a configuration; the oldest of more go.
_FILES = 16


def can_be_kept(files: Sequence[ConfigFile]) -> bool:
    """Whether the files alone decide what is answered to a question. Pure."""
    return not any(_outside(line) for file in files for line in file.lines())


def may_be_kept(query: Query) -> bool:
    """Whether the question itself asks for nothing more. Pure."""
    said = " ".join(query.options).lower()
    return "${" not in said and "canonicalize" not in said and "include" not in said


def _outside(line: ConfigLine) -> bool:
    if line.keyword == "match":
        return _OUTSIDE.search(line.rest) is not None
    return line.keyword == "canonicalizehostname" or "${" in line.rest


@dataclass
class AnswerMemory:
    """The answers in one file of ``.moorage``. ``state``: what they hold for, see :func:`state`."""

    path: Path
    state: str
    answers: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    _new: bool = False

    @classmethod
    def of(cls, path: Path, state: str) -> AnswerMemory:
        """Those that hold for this ``state``; none from a file that cannot be read."""
        try:
            document: Any = json.loads(path.read_bytes())
            if document["version"] != _VERSION or document["state"] != state:
                return cls(path, state)
            answers = {
                query: {str(key): tuple(map(str, values)) for key, values in found.items()}
                for query, found in document["answers"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path, state)
        return cls(path, state, answers)

    def get(self, query: Query) -> dict[str, tuple[str, ...]] | None:
        return self.answers.get(json.dumps(query))

    def put(self, query: Query, answer: dict[str, tuple[str, ...]]) -> None:
        if len(self.answers) < _MOST:
            self.answers[json.dumps(query)] = answer
            self._new = True

    def save(self) -> None:
        """Writes what is new. A disk that takes nothing costs time the next time."""
        import contextlib

        from moorage.files import private_folder, write_atomically

        if not self._new:
            return
        document = {"version": _VERSION, "state": self.state, "answers": self.answers}
        with contextlib.suppress(OSError):
            private_folder(self.path.parent)
            write_atomically(self.path, json.dumps(document).encode())
            by_age = sorted(self.path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for old in by_age[:-_FILES]:
                old.unlink(missing_ok=True)
        self._new = False


def state(files: Sequence[ConfigFile], *others: str) -> str:
    """The digest of all files that are read, and of whatever else decides."""
    found = hashlib.sha256()
    for file in files:
        for one in file.all():
            found.update(f"{one.path}\0{one.digest}\0".encode(errors="surrogateescape"))
    for other in others:
        found.update(f"{other}\0".encode())
    return found.hexdigest()
