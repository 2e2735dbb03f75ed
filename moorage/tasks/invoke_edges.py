"""Where Invoke's own edges differ from ours: exit codes, broken settings files, optional words.

Invoke ends with 1 on a flag it does not know, and with a traceback on a YAML file it cannot read, a
number that is none, or a list that ``| head`` has read enough of. Users expect 2 and a sentence,
and nothing of the last. Invoke knows no positional word that may be left out, either. It has no
hook for any of it, so six methods are wrapped here, and only here;
``tests/unit/test_invoke_edges.py`` holds them against the installed Invoke.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from invoke.config import AmbiguousMergeError, Config
from invoke.context import Context
from invoke.exceptions import AmbiguousEnvVar, Exit, ParseError, UncastableEnvVar
from invoke.parser.parser import ParseMachine
from invoke.program import Program

if TYPE_CHECKING:
    from invoke.parser.argument import Argument

    from moorage.errors import Refused
    from moorage.settings import Settings

# Invoke's own sections: https://docs.pyinvoke.org/en/stable/concepts/configuration.html
_INVOKES_OWN = frozenset(
    ("tasks", "run", "sudo", "runners", "timeouts", "namespaces", "fabric", "connect_kwargs")
)


def install() -> None:
    """Wraps Invoke's parser, settings loaders and lists, once."""
    if hasattr(Program.parse_tasks, "__wrapped__"):
        return
    # At its end Python looks for garbage among all that was loaded, for 35 ms; the system gets its
    # memory back either way.
    atexit.register(gc.freeze)
    _wrap(Program, "parse_tasks", _wrong_use)
    _wrap(Config, "load_project", _broken_file)
    _wrap(Config, "load_collection", _broken_file)
    _wrap(Config, "load_shell_env", _broken_variable)
    _wrap_words()
    _wrap_lists()


def _wrap_lists() -> None:
    """What ``--list`` and ``--help`` print may be read in part."""
    original = Program.parse_cleanup

    @functools.wraps(original)
    def parse_cleanup(self: Program) -> None:
        from moorage.ui import to_reader

        with to_reader(sys.stdout):
            original(self)

    Program.parse_cleanup = parse_cleanup  # type: ignore[method-assign]


def _wrap_words() -> None:
    """A word that may be left out is taken where it is given; a number has to be one."""
    original = ParseMachine.handle

    @functools.wraps(original)
    def handle(self: ParseMachine, token: str) -> None:
        place = _optional_word(self, token)
        if place is not None:
            place.value = token
            return
        flag = self.flag
        try:
            original(self, token)
        except ValueError:
            name = flag.names[0].replace("_", "-") if flag else token
            words = f"--{name} takes a whole number, not {token!r}"
            raise ParseError(words, self.context) from None

    ParseMachine.handle = handle  # type: ignore[method-assign]


def _optional_word(machine: ParseMachine, token: str) -> Argument | None:
    """Where the word belongs: to a positional argument that has a default and no value yet."""
    context = machine.context
    if (
        context is None
        or token.startswith("-")
        or token in machine.contexts
        or machine.waiting_for_flag_value
        or context.missing_positional_args
    ):
        return None
    left = (one for one in context.positional_args if one.raw_value is None)
    return next(left, None)


def _wrap(owner: type, name: str, explain: Callable[[Exception], Refused | None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            return original(*args, **options)
        except Exception as problem:
            refusal = explain(problem)
            if refusal is None:
                raise
            raise _told(refusal) from None

    setattr(owner, name, wrapped)


def _told(refusal: Refused) -> Exit:
    from moorage.ui import UI

    # No task has been parsed yet, so the flag is looked for where the user typed it.
    ui = UI(as_json="--json" in sys.argv)
    ui.error(refusal)
    ui.document({"ok": False, "error": refusal.to_json()})
    return Exit(code=refusal.exit_code)


def _wrong_use(problem: Exception) -> Refused | None:
    from moorage.errors import Refused

    if not isinstance(problem, ParseError):
        return None
    return Refused("wrong-use", str(problem), cure="inv --list, inv --help TASK")


def _broken_file(problem: Exception) -> Refused | None:
    from moorage.errors import Refused

    # Whatever the YAML reader raises: bad syntax, not UTF-8, a folder, no permission.
    cause = " ".join(str(problem).split())
    if isinstance(problem, AmbiguousMergeError):
        cause = f"a section of keys was expected: {cause}"
    return Refused(
        "unreadable-settings",
        "invoke.yaml cannot be read",
        cause=cause,
        cure="correct the file at that place; moorage/settings.py lists every section and key",
        path="invoke.yaml",
    )


def _broken_variable(problem: Exception) -> Refused | None:
    from moorage.errors import Refused

    if not isinstance(problem, AmbiguousEnvVar | UncastableEnvVar | ValueError):
        return None
    # Invoke does not say which variable it was; the value that could not be cast tells.
    name = next(
        (
            name
            for name, value in os.environ.items()
            if name.startswith("INVOKE_") and repr(value) in str(problem)
        ),
        "an INVOKE_* variable",
    )
    return Refused(
        "bad-setting",
        f"{name} in the environment has the wrong type",
        cause=str(problem),
        cure="moorage/settings.py lists every key with its type; correct or unset the variable",
    )


def _plain(value: Any) -> Any:
    """Invoke's proxies of mappings -> dicts."""
    return {key: _plain(value[key]) for key in value} if hasattr(value, "keys") else value


def settings_of(context: Context) -> Settings:
    """Invoke's merged configuration -> Settings. Raises Refused (see moorage.settings)."""
    from moorage import settings

    project = getattr(context.config, "_project", None) or {}
    settings.unknown_sections(project, _INVOKES_OWN, source="invoke.yaml")
    settings.unknown_variables(os.environ)
    sections = {key: context.config[key] for key in settings.defaults()}
    try:
        return settings.parse({key: _plain(section) for key, section in sections.items()})
    except settings.BadSetting as problem:
        variable = f"INVOKE_{problem.place.replace('.', '_').upper()}"
        if variable in os.environ:  # it wins over the file, so it is what has to be corrected
            raise settings.BadSetting(variable, problem.place, problem.expected) from None
        raise
