"""The command-line face: a plan on standard input, one JSON event a line on standard output.

    python3 agent.pyz apply [--dry-run | --stay]    bring the node into the plan's state, prove it
    python3 agent.pyz untrust [--dry-run]  take the trust away again
    python3 agent.pyz undo [--dry-run]     take back the last apply
    python3 agent.pyz verify               prove the trust as it stands
    python3 agent.pyz diff                 what differs from the plan, file by file
    python3 agent.pyz explain              which strategies there are, and which is taken
    python3 agent.pyz status | facts | history
    python3 agent.pyz recover [--boot | --stop-running]  roll back what an interrupted run left
    python3 agent.pyz reside | release            make the agent stay, and take it away
    python3 agent.pyz serve                what its service runs; ends by SIGTERM, tells no events
    python3 agent.pyz --version [--json]

With --stay the plan is one line, and after an apply that succeeded the agent asks to stay, as it
does with reside: the next line is its adoption. With --once nothing of the agent itself is left on
the node.

Exit 0: changed or unchanged; 1: failed, rolled back, or it differs; 2: a bad plan or wrong use.
The last line is a result event in each case.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from agent.wire.faults import AgentError, Interrupted
from agent.wire.report import FAILED, Event, Fault, HostResult, ResultEvent, event_to_json
from agent.wire.version import __version__

CHANGING = ("apply", "untrust", "undo")
WITH_PLAN = (*CHANGING, "verify", "diff", "explain")
WITHOUT_CA = ("untrust", "undo", "explain")
RESIDENT = ("reside", "release", "serve")
COMMANDS = (*WITH_PLAN, "status", "facts", "history", "recover", *RESIDENT)
# A look goes as far as this user may read, and says where that ends.
FOR_ANYONE = ("facts", "diff", "explain")
MAX_ADOPTION_BYTES = 64 << 10
USAGE = (
    f"usage: agent.pyz {'|'.join(COMMANDS)} [--dry-run] [--stay] [--once] [--boot] "
    "[--stop-running] [--root DIR] | --version [--json]"
)


class UsageError(AgentError):
    """The command line is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__("usage", message, cause="the command line is wrong", cure=USAGE)


class Command:
    """A command line taken apart."""

    def __init__(self, words: list[str]) -> None:
        self.name = ""
        self.dry_run = False
        self.boot = False
        self.stop_running = False
        self.stay = False
        self.root = "/"
        rest = iter(words)
        for word in rest:
            if word == "--dry-run":
                self.dry_run = True
            elif word == "--boot":
                self.boot = True
            elif word == "--stop-running":
                self.stop_running = True
            elif word == "--stay":
                self.stay = True
            elif word == "--once":
                pass  # the archive's: see agent.bootstrap
            elif word == "--root":
                self.root = next(rest, "")
            elif word in COMMANDS and not self.name:
                self.name = word
            else:
                raise UsageError(f"{word!r} is not understood here")
        if not self.name:
            raise UsageError("no command was given")
        if self.dry_run and self.name not in CHANGING:
            raise UsageError(f"--dry-run does not go with {self.name}")
        if self.stay and (self.name != "apply" or self.dry_run):
            raise UsageError("--stay goes with apply alone")
        if self.name != "recover" and (self.boot or self.stop_running):
            flag = "--boot" if self.boot else "--stop-running"
            raise UsageError(f"{flag} does not go with {self.name}")
        if not os.path.isdir(self.root):  # noqa: PTH112  (pathlib is not needed otherwise)
            raise UsageError(f"--root {self.root!r} is no folder")


def main(words: list[str] | None = None) -> int:
    """Run one command; everything that happens is told as events."""
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["--version"] and words[1:] in ([], ["--json"]):
        print(json.dumps(_about()) if words[1:] else f"moorage-agent {__version__}")  # noqa: T201
        return 0
    tell = Teller()
    try:
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(name, _stop)
        command = Command(words)
        if command.name == "serve":
            from agent.server.serve import run

            return run(command.root)
        with tell.alive():
            for event in _events(command):
                tell(event)
    except UsageError as problem:
        tell(_failed(problem.fault))
        return 2
    except AgentError as problem:  # what an operation does not tell itself: the plan
        tell(_failed(problem.fault))
        return 2
    except Interrupted as problem:
        tell(_failed(Fault("interrupted", f"stopped by {problem}; nothing was changed")))
    except Exception as problem:
        tell(_failed(_internal(problem)))
        if os.environ.get("MOORAGE_DEBUG"):
            raise
    return tell.code


def _events(command: Command) -> Iterator[Event]:
    from agent.engine.engine import Engine
    from agent.journal import desired
    from agent.journal.ledger import Store
    from agent.node.host import Host

    engine = Engine(Host(command.root))
    if command.name in WITH_PLAN:
        from agent.wire.plan import MAX_PLAN_BYTES, Plan

        stdin = sys.stdin.buffer
        most = MAX_PLAN_BYTES + 1
        plan = Plan.parse(stdin.readline(most) if command.stay else stdin.read(most))
        if command.name not in WITHOUT_CA:
            plan.require_ca()
    looks = command.dry_run or command.name in FOR_ANYONE
    if command.name == "verify":  # Docker's socket is its group's, CRI's are root's
        looks = set(plan.parts) <= {"hosts", "docker"}
    if command.root == "/" and not looks and os.geteuid() != 0:
        yield _failed(
            Fault(
                "not-root",
                "the agent must run as root here",
                cause="it edits /etc, restarts services and asks the runtime's socket",
                cure="run it through sudo",
            )
        )
        return
    if command.name in RESIDENT:
        from agent.resident import residence

        host, node = Host(command.root), platform.node()
        if command.name == "reside":
            yield from residence.reside(host, node, _adoption)
        else:
            yield from residence.release(host, node)
    elif command.dry_run:
        asked = {"apply": engine.apply, "untrust": engine.untrust, "undo": engine.undo}
        yield from asked[command.name](plan, dry_run=True)
    elif command.name == "apply":
        events = desired.applied(Store(command.root), plan, engine.apply(plan))
        if command.stay:
            from agent.resident import residence

            events = residence.staying(Host(command.root), events, _adoption)
        yield from events
    elif command.name == "untrust":
        yield from desired.untrusted(Store(command.root), plan, engine.untrust(plan))
    elif command.name == "undo":
        yield from desired.untrusted(Store(command.root), plan, engine.undo(plan))
    elif command.name == "verify":
        yield from engine.verify(plan)
    elif command.name == "diff":
        yield from engine.diff(plan)
    elif command.name == "explain":
        yield from engine.explain(plan)
    elif command.name == "recover":
        yield from engine.recover(boot=command.boot, stop_running=command.stop_running)
    else:
        yield from {
            "status": engine.status,
            "history": engine.history,
            "facts": engine.look,
        }[command.name]()


def _adoption() -> bytes:
    """The operator's answer to a request; empty for no, and where nobody answers any more."""
    return sys.stdin.buffer.readline(MAX_ADOPTION_BYTES)


class Teller:
    """Writes events. The work is finished also where the reader went away."""

    def __init__(self) -> None:
        self.code = 1
        self._heard = True
        self._write: Callable[[bytes], None] = self._to_stdout

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Between the events, a line now and then that says the agent is at work."""
        from agent.node import pulse

        with pulse.beside(self._to_stdout) as self._write:
            yield
        self._write = self._to_stdout

    def __call__(self, event: Event) -> None:
        if isinstance(event, ResultEvent):
            self.code = event.result.exit_code
        line = json.dumps(event_to_json(event), ensure_ascii=False) + "\n"
        self._write(line.encode("utf-8", "replace"))

    def _to_stdout(self, line: bytes) -> None:
        if not self._heard:
            return
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except OSError:
            self._heard = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _stop(number: int, frame: object) -> None:
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    raise Interrupted(signal.Signals(number).name)


def _failed(fault: Fault) -> ResultEvent:
    return ResultEvent(HostResult(host=platform.node(), status=FAILED, error=fault))


def _internal(problem: Exception) -> Fault:
    return Fault(
        "internal-error",
        f"{type(problem).__name__}: {problem}",
        cause="a defect of the agent",
        cure="run it again with MOORAGE_DEBUG=1 and report what it says",
    )


def _about() -> dict[str, Any]:
    """Version, what it reads, and the software bill of materials where this is the archive."""
    from pkgutil import get_data

    from agent.wire.plan import VERSION

    sbom = None
    with suppress(OSError):
        sbom = json.loads(get_data("agent", "sbom.json") or b"null")
    return {
        "name": "moorage-agent",
        "version": __version__,
        "plan": VERSION,
        "python": platform.python_version(),
        "sbom": sbom,
    }


if __name__ == "__main__":
    sys.exit(main())
