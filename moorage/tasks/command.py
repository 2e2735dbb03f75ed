"""Turns a function into an Invoke task that speaks as every command of Moorage does.

The function receives a :class:`Run` first and returns a JSON-ready document (or None). The task
gains ``--json``; what the user can cause ends as a sentence and an exit code, never a traceback.
"""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task, task

from moorage.configuration import profiles

if TYPE_CHECKING:
    from moorage.configuration.origins import SettingSource
    from moorage.errors import MoorageError
    from moorage.logs.command_log import CommandLog
    from moorage.output import Note
    from moorage.settings import Settings
    from moorage.ui import UI

_JSON_HELP = "one JSON document on stdout, words on stderr"
_YES_HELP = "agree beforehand to what would be asked"
_VERBOSE_HELP = "say programs, requests and SSH sessions as they come; -vv: all of it"


@dataclass(frozen=True)
class Run:
    """What every task works with: the parsed settings and the one voice."""

    settings: Settings
    ui: UI
    # What was read, each source over those before it.
    sources: tuple[SettingSource, ...] = ()


def command(
    *,
    help: dict[str, str] | None = None,
    lock: bool | str = False,
    only_reads: str = "",
    reads_settings: bool = True,
    own_registry: str = "",
    **task_options: Any,
) -> Callable[[Callable[..., Any]], Task[Any]]:
    """Decorator. ``lock``: only one such task at a time in this folder; the name of a flag: where
    it is given. ``only_reads``: the name of a flag with which the task changes nothing, and needs
    no lock. ``reads_settings``: False for a task that judges the sources of settings itself; it
    starts with the defaults. ``own_registry``: how a task is typed that is for a registry that
    Moorage runs; it is refused for somebody else's.

    A document whose ``"ok"`` is False ends the run with exit code 1, one that is well but whose
    ``"proven"`` is False with 3: done, but not proven.
    """

    def decorate(body: Callable[..., Any]) -> Task[Any]:
        signature = inspect.signature(body)
        takes_yes = "yes" in signature.parameters

        @functools.wraps(body)
        def entry(
            context: Context, /, *args: Any, json: bool = False, v: int = 0, **options: Any
        ) -> None:
            from moorage.ui import UI

            ui = UI(
                as_json=json,
                as_lines=bool(options.get("json_lines")),
                yes=bool(options.get("yes")),
            )

            def start() -> Run:
                settings, sources = _read(context, reads_settings=reads_settings)
                return Run(settings, ui, sources)

            work = partial(_own, body, own_registry) if own_registry else body
            with _logged(ui, v) as log:
                locked = _locked(lock, only_reads, options)
                document = _spoken(ui, log, partial(_call, start, work, locked, args, options))
                code = _exit_code(document) if isinstance(document, dict) else 0
                if code == 1:
                    ui.present(_where(log))
                if code:
                    raise Exit(code=code)

        extra = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in (("json", False), ("v", 0))
        ]
        # Invoke derives the flags from the signature it sees.
        entry.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), *extra]
        )
        texts = {**({"yes": _YES_HELP} if takes_yes else {}), **(help or {})}
        texts |= {"json": _JSON_HELP, "v": _VERBOSE_HELP}
        options = {"auto_shortflags": False, "incrementable": ["v"], **task_options}
        made: Task[Any] = task(help=texts, **options)(entry)
        return made

    return decorate


def _spoken(ui: UI, log: CommandLog, call: Callable[[], Any]) -> Any:
    """What the task returns, as the run's document; a failure as its sentence and exit code."""
    from moorage.errors import MoorageError

    try:
        try:
            document = call()
        except Exception as problem:
            from moorage.unforeseen import as_ours

            raise as_ours(problem) from problem
    except MoorageError as problem:
        ui.error(problem)
        ui.present(_where(log))
        if not ui.documented:
            told = {} if log.path is None else {"log": str(log.path)}
            ui.document({"ok": False, "error": problem.to_json(), **told})
        raise Exit(code=problem.exit_code) from None
    except KeyboardInterrupt as stop:
        sig = stop.args[0] if stop.args else signal.SIGINT
        ui.warn("stopped; run the same command again to go on from here")
        if not ui.documented:
            ui.document({"ok": False, "error": _stopped(sig).to_json()})
        raise Exit(code=128 + int(sig)) from None
    ui.document({"ok": True} if document is None else document)
    return document


@contextmanager
def _logged(ui: UI, level: int) -> Iterator[CommandLog]:
    """The command's log for the length of a block; a defect of ours ends up in it too."""
    import logging

    from moorage.logs import command_log
    from moorage.program import called
    from moorage.settings import Settings

    profile = profiles.current(os.environ)
    words = shlex.join(["inv", *sys.argv[1:], *profiles.options(os.environ)])
    folder = Settings(profile=profile).state / "log"
    log = command_log.begin(folder, called.task() or "inv", words, say=ui.trace, level=level)
    try:
        yield log
    except Exit:
        raise
    except Exception:
        logging.getLogger("moorage").exception("a defect of Moorage")
        ui.present(_where(log))
        raise
    finally:
        command_log.end(log)


def _where(log: CommandLog) -> list[Note]:
    """Where the log of a failed command is, if it has one."""
    from moorage.output import Note

    return [] if log.path is None else [Note(f"log: {log.path}")]


def _exit_code(document: dict[str, Any]) -> int:
    """The exit code that a document asks for."""
    from agent.wire.report import NOT_PROVEN

    if document.get("ok") is False:
        return 1
    return NOT_PROVEN if document.get("proven") is False else 0


def _read(context: Context, *, reads_settings: bool) -> tuple[Settings, tuple[SettingSource, ...]]:
    """Raises Refused (see moorage.settings) unless the task judges the settings itself."""
    from moorage.program import reading
    from moorage.settings import Settings

    profile = profiles.current(os.environ)
    settings = reading.settings_of(context) if reads_settings else Settings(profile=profile)
    return settings, reading.sources_of(context.config)


def _locked(lock: bool | str, only_reads: str, options: dict[str, Any]) -> bool:
    """Whether this run has to be the only one in the folder."""
    if options.get(only_reads):
        return False
    return bool(options.get(lock)) if isinstance(lock, str) else lock


def _call(
    start: Callable[[], Run],
    body: Callable[..., Any],
    locked: bool,
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    from contextlib import nullcontext

    from moorage.errors import MoorageError
    from moorage.lock import project_lock
    from moorage.program import called

    # SIGTERM takes the road of Ctrl-C, so that clean-ups run once and in one way.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    run = start()
    with (
        project_lock(run.settings.state, f"inv {called.task()}".strip())
        if locked
        else nullcontext()
    ):
        try:
            return body(run, *args, **options)
        except MoorageError as problem:
            from moorage.registry.logins import external
            from moorage.supply import cures

            problem = cures.advised(run.settings.root, problem)
            raise external.advised(run.settings, problem) from None


def _own(body: Callable[..., Any], typed: str, run: Run, *args: Any, **options: Any) -> Any:
    """The task's work. Raises Refused (``registry-external``) for somebody else's registry."""
    if run.settings.registry.external:
        from moorage.registry.logins import external

        external.require_own(run.settings, typed)
    return body(run, *args, **options)


def _stopped(number: int) -> MoorageError:
    from moorage.errors import MoorageError

    return MoorageError(
        "stopped",
        "it was stopped before its end",
        cause=f"{signal.Signals(number).name} was sent to it",
        cure="the same command again goes on from here",
    )


def _stop(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)
