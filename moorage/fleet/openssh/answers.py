"""Who answers what OpenSSH makes of a host: ``ssh`` itself, what it answered before, or we."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from moorage.errors import Refused
from moorage.fleet.openssh import files, memory, program, reading
from moorage.fleet.openssh.program import Program, Query

Options = Mapping[str, tuple[str, ...]]


class Answers(Protocol):
    """What OpenSSH makes of hosts; asked from many threads."""

    def options(self, query: Query) -> Options:
        """Keyword in small letters -> values. Raises Refused (``bad-ssh-config``)."""

    def keep(self) -> None:
        """Keeps what was answered for the next run, as far as it will hold then."""


def of(config: Path | None, folder: Path | None) -> Answers:
    """The answers for one configuration.

    ``config``: the file in place of the user's and the system's, None for those. ``folder``: where
    answers are kept from run to run, None: nowhere. Raises Refused for a file that is not to be
    read, or, by our own reading, that is not understood.
    """
    ssh = program.find()
    return _Ours(config) if ssh is None else _Theirs(ssh, config, folder)


def source(config: Path | None) -> Path:
    """The file to look into for what is wrong."""
    return config or files.home() / ".ssh/config"


class _Ours:
    """By our own reading."""

    def __init__(self, config: Path | None) -> None:
        self._reading = reading.Reading(files.read(config), files.me())

    def options(self, query: Query) -> Options:
        given = [files.line_of(option, f"ssh -o {option}") for option in _spelled_out(query)]
        return self._reading.options(query.host, given)

    def keep(self) -> None:
        pass


def _spelled_out(query: Query) -> tuple[str, ...]:
    user = (f"User={query.user}",) if query.user else ()
    port = (f"Port={query.port}",) if query.port else ()
    return (*user, *port, *query.options)


class _Theirs:
    """By ``ssh``, asked once a question."""

    def __init__(self, ssh: Program, config: Path | None, folder: Path | None) -> None:
        self._ssh = ssh
        self._config = config
        if config is not None:
            files.require_readable(config)
        self._says_user = True
        self._memory: memory.AnswerMemory | None = None
        with contextlib.suppress(Refused):  # what is wrong with it, ssh will tell
            self._look(folder)

    def _look(self, folder: Path | None) -> None:
        found = files.read(self._config)
        self._says_user = any(line.keyword == "user" for file in found for line in file.lines())
        if folder is not None and memory.can_be_kept(found):
            name = hashlib.sha256(str(source(self._config)).encode()).hexdigest()[:16]
            self._memory = memory.AnswerMemory.of(folder / f"{name}.json", self._state(found))

    def _state(self, found: tuple[files.ConfigFile, ...]) -> str:
        return memory.state(found, self._ssh.version, str(os.getuid()), files.me())

    def options(self, query: Query) -> Options:
        query = query._replace(config=str(self._config or ""))
        kept = self._memory.get(query) if self._memory is not None else None
        if kept is not None:
            return kept
        answer = self._ssh.options(query)
        if not self._says_user and not query.user and not _user_in(query.options):
            del answer["user"]
        if self._memory is not None and memory.may_be_kept(query):
            self._memory.put(query, answer)
        return answer

    def keep(self) -> None:
        # What was edited while it was asked may have answered from both sides of the edit.
        with contextlib.suppress(Refused):
            if self._memory is not None and self._memory.state == self._state(
                files.read(self._config)
            ):
                self._memory.save()


def _user_in(options: tuple[str, ...]) -> bool:
    return any(option.lower().startswith("user") for option in options)
