"""The command-line face: a plan on standard input, one JSON event a line on standard output.

    python3 agent.pyz apply [--dry-run | --stay]    bring the node into the plan's state, prove it
    python3 agent.pyz untrust [--dry-run]  take the trust away again
    python3 agent.pyz undo [--dry-run]     take back the last apply of its registry
    python3 agent.pyz verify               prove the trust as it stands
    python3 agent.pyz diff                 what differs from the plan, file by file
    python3 agent.pyz explain              which strategies there are, and which is taken
    python3 agent.pyz status | facts | history
    python3 agent.pyz recover [--boot | --stop-running]  roll back what an interrupted run left
    python3 agent.pyz reside | release            make the agent stay, and take it away
    python3 agent.pyz upgrade [--downgrade]       make this archive the one that stays
    python3 agent.pyz serve                what its service runs; ends by SIGTERM, tells no events
    python3 agent.pyz --version [--json]

With --stay the plan is one line, and after an apply that succeeded the agent asks to stay, as it
does with reside: the next line is its adoption. Its service starts when the result has been told.
With --once nothing of the agent itself is left on the node.

Exit 0: changed or unchanged; 1: failed, rolled back, or it differs; 2: a bad plan or wrong use.
The last line is a result event in each case.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from agent.wire.faults import AgentError, Fault, Interrupted
from agent.wire.report import FAILED, Event, HostResult, ResultEvent, event_to_json
from agent.wire.verbs import VERBS, Verb, named
from agent.wire.version import __version__

if TYPE_CHECKING:
    from agent.wire.plan import Plan

SERVE = "serve"
_FLAGS = ("--dry-run", *(flag for verb in VERBS for flag in verb.flags))
MAX_ADOPTION_BYTES = 64 << 10
# The notes of agent.resident.settling, which is loaded if one of them is there.
_NOT_SETTLED = ("unsettled.json", "resident/settling")
USAGE = (
    f"usage: agent.pyz {'|'.join([*(verb.name for verb in VERBS), SERVE])} "
    f"{' '.join(f'[{flag}]' for flag in (*_FLAGS, '--once'))} [--root DIR] | --version [--json]"
)


class UsageError(AgentError):
    """The command line is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__("usage", message, cause="the command line is wrong", cure=USAGE)


class Command:
    """A command line taken apart."""

    def __init__(self, words: list[str]) -> None:
        self.name = ""
        self.flags: set[str] = set()
        self.root = "/"
        rest = iter(words)
        for word in rest:
            if word in _FLAGS:
                self.flags.add(word)
            elif word == "--once":
                pass  # the archive's: see agent.bootstrap
            elif word == "--root":
                self.root = next(rest, "")
            elif not self.name and word in (SERVE, *(verb.name for verb in VERBS)):
                self.name = word
            else:
                raise UsageError(f"{word!r} is not understood here")
        if not self.name:
            raise UsageError("no command was given")
        self._refuse_what_does_not_go_together()
        if not os.path.isdir(self.root):  # noqa: PTH112  (pathlib is not needed otherwise)
            raise UsageError(f"--root {self.root!r} is not a folder")

    def _refuse_what_does_not_go_together(self) -> None:
        takes: tuple[str, ...] = ()
        if self.name != SERVE:
            takes = ("--dry-run", *self.verb.flags) if self.verb.changes else self.verb.flags
        if "--stay" in self.flags and ("--stay" not in takes or self.dry_run):
            raise UsageError("--stay goes only with apply")
        for flag in sorted(self.flags.difference(takes)):
            raise UsageError(f"{flag} does not go with {self.name}")

    @property
    def verb(self) -> Verb:
        return named(self.name)

    @property
    def dry_run(self) -> bool:
        return "--dry-run" in self.flags

    @property
    def stay(self) -> bool:
        return "--stay" in self.flags

    @property
    def looks(self) -> bool:
        """Whether it goes as far as this user may read, and says where that ends."""
        return self.dry_run or not self.verb.root


def main(words: list[str] | None = None) -> int:
    """Run one command; everything that happens is reported as events."""
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["--version"] and words[1:] in ([], ["--json"]):
        print(json.dumps(_about()) if words[1:] else f"moorage-agent {__version__}")  # noqa: T201
        return 0
    tell, later = Teller(), list[Callable[[], None]]()
    try:
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(name, _stop)
        command = Command(words)
        if command.name == SERVE:
            from agent.server.serve import run

            return run(command.root)
        with tell.alive():
            for event in _events(command, later):
                tell(event)
        for work in later:
            from agent.resident import settling

            settling.afterwards(work)
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


def _events(command: Command, later: list[Callable[[], None]]) -> Iterator[Event]:
    """What happens; ``later`` gets what is to be done when all of it has been reported."""
    verb, looks = command.verb, command.looks
    plan = _plan(command) if verb.plan else None
    if plan is not None and verb.rootless_parts:
        looks = set(plan.parts) <= set(verb.rootless_parts)
    if command.root == "/" and not looks and os.geteuid() != 0:
        yield _failed(_NOT_ROOT)
    elif verb.resident:
        yield from _about_the_resident(command)
    else:
        yield from _on_the_node(command, plan, later)


def _plan(command: Command) -> Plan:
    from agent.wire.plan import MAX_PLAN_BYTES, Plan

    stdin, most = sys.stdin.buffer, MAX_PLAN_BYTES + 1
    plan = Plan.parse(stdin.readline(most) if command.stay else stdin.read(most))
    if command.verb.ca:
        plan.require_ca()
    return plan


def _on_the_node(
    command: Command, plan: Plan | None, later: list[Callable[[], None]]
) -> Iterator[Event]:
    from agent.engine.carrying import carry_out
    from agent.engine.engine import Engine
    from agent.journal.ledger import Store
    from agent.node.host import Host

    host = Host(command.root)
    more = {_keyword(flag): True for flag in command.flags if plan is None}
    store, dry_run = Store(command.root), command.dry_run
    events = carry_out(Engine(host), store, command.verb, plan, dry_run=dry_run, **more)
    if command.stay:
        from agent.resident import residence

        return residence.staying(host, events, _adoption, later)
    return _beside_an_agent(command.root, events)


def _beside_an_agent(root: str, events: Iterator[Event]) -> Iterator[Event]:
    """Whoever comes by SSH may have looked for an agent that has not come up: why is told first."""
    folder = os.path.join(root, "var/lib/moorage")  # noqa: PTH118
    if any(os.path.lexists(os.path.join(folder, name)) for name in _NOT_SETTLED):  # noqa: PTH118
        from agent.resident import settling

        event = settling.told(root)
        if event is not None:
            yield event
    yield from events


def _about_the_resident(command: Command) -> Iterator[Event]:
    from agent.node.host import Host
    from agent.resident import residence, upgrade

    host, node = Host(command.root), os.uname().nodename
    if command.name == "reside":
        return residence.reside(host, node, _adoption)
    if command.name == "upgrade":
        return upgrade.upgrade(host, node, downgrade="--downgrade" in command.flags)
    return residence.release(host, node)


def _keyword(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


_NOT_ROOT = Fault(
    "not-root",
    "the agent must run as root here",
    cause="it edits /etc, restarts services and asks the runtime's socket",
    cure="run it through sudo",
)


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
    return ResultEvent(HostResult(host=os.uname().nodename, status=FAILED, error=fault))


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
        "python": ".".join(map(str, sys.version_info[:3])),
        "sbom": sbom,
    }


if __name__ == "__main__":
    sys.exit(main())
