"""The agent's errand on one node: which shell words start it, and what its answer means.

Warm, one channel does: the shell finds the archive of this digest and becomes the agent. Where it
is not there, a second channel carries archive and plan together. All pure but for reading
``bootstrap.py``; the channels are ``moorage.fleet.ssh.session``'s.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from agent.wire.faults import Fault
from agent.wire.report import FAILED, HostResult
from moorage.fleet.errand import faults

AGENT_FOLDER = "/var/lib/moorage/agent"
# The newest the distributions ship first after the system's own; RHEL 8's python3 is 3.6.
_PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 8, -1)))

# Exit codes of our own shell words, away from those of shells, sudo and Python.
ABSENT = 81
NO_PYTHON = 82
OLD_PYTHON = 83
NO_SUDO = 84
# A shell's "not found" and "not executable": the recorded interpreter is gone.
_GONE = (126, 127)

ROOT_EVENT = '{"event": "root"}'

# No event is longer: a diff of a configuration file is kilobytes.
MAX_LINE = 4 << 20
MAX_OUTPUT = 64 << 20
# An agent that has told of its pulse (agent/node/pulse.py, every ten seconds) is silent if it
# hangs.
PULSE_SECONDS = 45.0
_KEPT_WORDS = 2000
# What paramiko puts into one of OpenSSH's packets of 32 KiB: Channel._wait_for_send_window keeps 64
# bytes of each for itself. Of a longer piece it copies what is left after each packet.
PIECE = (1 << 15) - 64


@dataclass(frozen=True)
class Become:
    """How to be root: not at all needed, by sudo without, or by sudo with a password."""

    sudo: bool
    password: str | None = field(default=None, repr=False)


def warm_words(digest: str, words: Sequence[str]) -> str:
    """The shell's part where the archive is there already; exits with ``ABSENT`` where not."""
    place = f"{AGENT_FOLDER}/{digest}"
    return (
        f"if [ -f {place}.pyz ] && read -r python < {place}.python; then "
        f'exec "$python" -I -S {place}.pyz {shlex.join(words)}; fi; exit {ABSENT}'
    )


def cold_words(digest: str, size: int, words: Sequence[str]) -> str:
    """The shell's part that takes ``size`` bytes of archive from stdin, keeps and runs it."""
    check = "import sys; sys.exit(sys.version_info < (3, 9))"
    return (
        f"found={NO_PYTHON}; for name in {' '.join(_PYTHONS)}; do "
        'python=$(command -v "$name") || continue; '
        # Its file's name tells the version where it has one; else it is started once to ask it.
        'case $(readlink -f "$python") in */python3.9 | */python3.1[0-9]) ;; '
        f'*) "$python" -I -S -c {shlex.quote(check)} 2>/dev/null '
        f"|| {{ found={OLD_PYTHON}; continue; }} ;; esac; "
        f'exec "$python" -I -S -c {shlex.quote(_bootstrap())} {digest} {size} "$python" '
        f"{shlex.join(words)}; done; exit $found"
    )


def pieces(content: bytes) -> Iterator[bytes]:
    """``content`` for :meth:`paramiko.Channel.sendall`, a packet each.

    Of 1.7 MB at once it copies 43 on the way: a third of an operator's work on a host.
    """
    for place in range(0, len(content), PIECE):
        yield content[place : place + PIECE]


def as_root(words: str, become: Become, prompt: str) -> str:
    """The one command line for a login shell of any make: only a quoted word after ``sh -c``.

    ``prompt`` is what sudo shall ask with, so that its question is known among other words.
    """
    if not become.sudo:
        return f"exec sh -c {shlex.quote(words)}"
    how = "-n"
    if become.password is not None:
        how = f"-S -p {shlex.quote(prompt)}"
        # Whether sudo asks is its own affair (NOPASSWD); nobody may take the plan for a password.
        words = f"echo {shlex.quote(ROOT_EVENT)}; {words}"
    inner = shlex.quote(words)
    outer = (
        f'if [ "$(id -u)" = 0 ]; then exec sh -c {inner}; fi; '
        f"command -v sudo >/dev/null 2>&1 || exit {NO_SUDO}; "
        # The messages are read by sudo_fault below.
        f"exec env LC_ALL=C sudo {how} sh -c {inner}"
    )
    return f"exec sh -c {shlex.quote(outer)}"


@cache
def _bootstrap() -> str:
    text = Path(__file__).with_name("bootstrap.py").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if line and not line.startswith("#"))


# An event -> the line it is answered with, if it asks for one.
Reply = Callable[[dict[str, Any]], "bytes | None"]


class ErrandAnswer:
    """Reads what comes back, as it comes: JSON events on stdout, anything else is kept as words.

    ``on_event`` gets each event but the result. A login shell's greeting or a forced command's
    refusal is no event; its last words explain a failure. ``reply`` makes what an event asks for.
    """

    def __init__(
        self,
        on_event: Callable[[dict[str, Any]], None] = lambda _: None,
        reply: Reply | None = None,
    ) -> None:
        self.result: dict[str, Any] | None = None
        self.not_installed: dict[str, Any] | None = None
        self.is_root = False
        self.too_much = False
        # How it ended: an exit status, 0 for a whole answer over HTTPS, -1 for a broken line.
        self.status = 0
        self.may_ask = reply is not None
        self._pulse = False
        self._on_event = on_event
        self._reply = reply
        self._line_back: bytes | None = None
        self._rest = b""
        self._words = ""
        self._size = 0
        self._events = 0

    @property
    def words(self) -> str:
        """The last words that were no events, from both streams."""
        return "\n".join(line for line in self._words.splitlines() if line.strip())

    @property
    def begun(self) -> bool:
        """Whether the agent itself has spoken."""
        return self.result is not None or self._events > 0

    def reply(self) -> bytes | None:
        """What is to be sent back, once; nothing is asked for after it."""
        line, self._line_back = self._line_back, None
        if line is not None:
            self.may_ask = False
        return line

    def patience(self, most: float) -> float:
        """The seconds of silence to bear from now on: ``most`` until a pulse was heard."""
        return min(most, PULSE_SECONDS) if self._pulse else most

    def stdout(self, data: bytes) -> None:
        self._size += len(data)
        self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        self.too_much = self._size > MAX_OUTPUT or len(self._rest) > MAX_LINE
        for line in lines:
            self._line(line)

    def stderr(self, data: bytes) -> None:
        self._keep(data.decode(errors="replace"))

    def end(self) -> None:
        self._line(self._rest)
        self._rest = b""

    def _line(self, line: bytes) -> None:
        event = _event(line)
        if event is None:
            self._keep(line.decode(errors="replace") + "\n")
        elif event["event"] == "result":
            self.result = event
        elif event["event"] == "not-installed":
            self.not_installed = event
        elif event["event"] == "root":
            self.is_root = True
        elif event["event"] == "alive":
            self._pulse = True
            self._events += 1
        else:
            self._events += 1
            if event["event"] == "status":
                _compare_clocks(event)
            self._on_event(event)
            if self._reply is not None and self.may_ask:
                self._line_back = self._reply(event) or self._line_back

    def _keep(self, text: str) -> None:
        self._words = (self._words + text)[-_KEPT_WORDS:]


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{"):
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _compare_clocks(event: dict[str, Any]) -> None:
    """Adds by how many seconds the node's clock is ahead; None for an agent of before, that does
    not say its time, and for what is no time."""
    theirs = event.get("time")
    event["clock_ahead"] = None
    if isinstance(theirs, int) and 0 < theirs < 1 << 40:
        event["clock_ahead"] = theirs - int(time.time())


def absent(answer: ErrandAnswer) -> bool:
    """Whether the archive (or the Python it was installed with) has to be brought first."""
    return not answer.begun and (answer.status == ABSENT or answer.status in _GONE)


def host_result(name: str, answer: ErrandAnswer, user: str) -> HostResult:
    """What an ended errand means for the host called ``name``."""
    if answer.result is not None:
        document = {key: value for key, value in answer.result.items() if key in _RESULT_KEYS}
        try:
            return replace(HostResult.from_json(document | {"host": name}), host=name)
        except (ValueError, AttributeError) as problem:
            return failed(name, faults.not_an_answer(str(problem)))
    return failed(name, _fault(answer, user))


_RESULT_KEYS = frozenset(HostResult.__dataclass_fields__)


def failed(name: str, fault: Fault, status: str = FAILED) -> HostResult:
    return HostResult(host=name, status=status, error=fault)


def _fault(answer: ErrandAnswer, user: str) -> Fault:
    status = answer.status
    if answer.too_much:
        return faults.not_an_answer("it answered without end")
    if answer.not_installed is not None:
        return faults.not_installed(answer.not_installed)
    if status == NO_PYTHON:
        return faults.NO_PYTHON
    if status == OLD_PYTHON:
        return faults.OLD_PYTHON
    if status == NO_SUDO:
        return faults.no_sudo(user)
    if status == -1:
        return faults.connection_lost(answer.begun)
    return faults.from_words(answer.words, status, user)
