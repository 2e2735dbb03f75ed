"""The log of one command: programs run, requests made, SSH sessions, and what was said.

Rooms tell it through the standard library's ``logging``, below ``moorage``; urllib3 and paramiko
have loggers of their own. A file comes about with the first line, mode 0600, and the oldest of more
than ``KEPT`` go. No log is worth a failure: a folder that cannot be written is left alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from moorage.files import keep_newest, new_log
from moorage.redaction import redacted

KEPT = 20
MOST_BYTES = 2_000_000
SAID = "moorage.said"  # what the user has read already
_LOGGERS = ("moorage", "urllib3", "paramiko", "docker", "fabric")
_NOTHING = logging.CRITICAL + 1
# urllib3 tells each request and its status at this level: its connectionpool.py.
_REQUEST = '%s://%s:%s "%s %s'


def level_of(record: logging.LogRecord) -> int:
    """How much has to be asked for to see a record: 1 for ``-v``, 2 for ``-vv``."""
    is_request = record.name == "urllib3.connectionpool" and str(record.msg).startswith(_REQUEST)
    ours = record.name.partition(".")[0] == "moorage"
    return 1 if is_request or (ours and record.levelno >= logging.INFO) else 2


def floor_of(name: str, most: int) -> int:
    """The level below which a logger need not make records: :func:`level_of` would drop them all.

    paramiko tells 40 of each connection, and most commands show none.
    """
    if most > 1:
        return logging.DEBUG
    return {"moorage": logging.INFO, "urllib3": logging.DEBUG}.get(name, _NOTHING)


class CommandLog(logging.Handler):
    """Writes the file of one task. ``words``: the command as it was typed."""

    def __init__(self, folder: Path, task: str, words: str, *, level: int) -> None:
        super().__init__(logging.DEBUG)
        self._folder, self._task, self._words = folder, task, words
        self.most = max(level, 1)
        self._file: TextIO | None = None
        self._left = MOST_BYTES
        self.path: Path | None = None
        self.echo: Echo | None = None
        self.setFormatter(_Redacted("%(asctime)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record that is not too fine; the line says by itself where the log was cut."""
        if level_of(record) > self.most or self._left <= 0:
            return
        with contextlib.suppress(OSError):
            line = self.format(record)
            self._left -= len(line)
            if self._left <= 0:
                line = f"{line[:200]} ... the log ends here: it has {MOST_BYTES} bytes"
            file = self._file or self._opened()
            file.write(f"{line}\n")
            file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    def _opened(self) -> TextIO:
        safe = "".join(one if one.isalnum() or one in ".-" else "_" for one in self._task)[:60]
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        path = self._folder / f"{stamp}-{os.getpid()}-{safe}.log"
        self._file = new_log(path)
        self.path = path
        keep_newest(self._folder, "*.log", KEPT)
        self._file.write(f"{redacted(self._words)}\n")
        return self._file


class Echo(logging.Handler):
    """Says records to the user, as ``-v`` or ``-vv`` ask for; not what was said anyway."""

    def __init__(self, say: Callable[[str], None], *, level: int) -> None:
        super().__init__(logging.DEBUG)
        self._say, self._most = say, level
        self.setFormatter(_Redacted("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if level_of(record) <= self._most and record.name != SAID:
            self._say(self.format(record))


class _Redacted(logging.Formatter):
    """The whole line at last: message, arguments and traceback."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def begin(
    folder: Path, task: str, words: str, *, say: Callable[[str], None], level: int
) -> CommandLog:
    """Starts to listen; ended by :func:`end`.

    ``task`` names the file; ``level``: 0, 1 for ``-v``, 2 for ``-vv``.
    """
    log = CommandLog(folder, task, words, level=level)
    log.echo = Echo(say, level=level) if level else None
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.propagate = False  # the root's last resort would print to stderr
        logger.addHandler(log)
        logs = [one for one in logger.handlers if isinstance(one, CommandLog)]
        logger.setLevel(min(floor_of(name, one.most) for one in logs))
        if log.echo is not None:
            logger.addHandler(log.echo)
    return log


def end(log: CommandLog) -> None:
    """Stops listening and closes the file; another command's log in this process goes on."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [one for one in logger.handlers if one not in (log, log.echo)]
    log.close()
