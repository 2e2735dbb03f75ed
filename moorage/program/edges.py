"""Where Invoke's own edges differ from ours: help, exit codes, broken settings, optional words.

Invoke runs a task whose positional word is ``--help``, writes under ``--dry``, ends with 1 on a
flag that it does not know, and with a traceback on a YAML file that it cannot read, an invalid
number, or a list of which ``| head`` has read enough. Users expect help, 2 and a sentence, and
nothing in the last case. Invoke knows no optional positional word, either. Invoke has no
hook for any of it, so its methods are wrapped here, and only here;
``tests/unit/program/test_edges.py`` holds the wraps against the installed Invoke.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import invoke.program
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.parser.parser import ParseMachine, Parser
from invoke.program import Program

from moorage.configuration import profiles
from moorage.errors import Refused
from moorage.output.typed import PROFILE
from moorage.program import called, reading, wrong_use

if TYPE_CHECKING:
    from invoke.parser.argument import Argument

    from moorage.settings import Settings

# Invoke's core options that would promise what no task of ours does: none runs a command of
# Invoke's, and a rehearsal is each task's own --dry-run.
_MEANINGLESS = frozenset(
    (
        *("command-timeout", "dry", "echo", "hide", "no-dedupe", "prompt-for-sudo-password"),
        *("pty", "warn-only", "write-pyc"),
    )
)
_HELP = frozenset(("-h", "--help"))


def install() -> None:
    """Wraps Invoke's parser, settings loaders and lists, once."""
    if hasattr(Program.parse_tasks, "__wrapped__"):
        return
    # At its end Python looks for garbage among all that was loaded, for 35 ms; the system gets its
    # memory back either way.
    atexit.register(gc.freeze)
    _wrap_profile()
    _wrap(Program, "parse_core", wrong_use.refusal)
    called.install()
    _keep_bytecode()
    _replace_answers()
    _wrap_help()
    _wrap_parser()
    _wrap(Program, "parse_tasks", wrong_use.refusal)
    for kind in ("system", "user", "project", "runtime"):
        _wrap(Config, f"load_{kind}", partial(reading.broken_file, kind))
    _wrap(Config, "merge", reading.broken_merge)
    _wrap_empty_sections()
    _wrap(Config, "load_shell_env", reading.broken_variable)
    _wrap_words()
    _wrap_lists()


def _keep_bytecode() -> None:
    """Invoke has no bytecode written unless it is told ``--write-pyc``, so that every command would
    compile all of its task anew, for half a second. Python's own switches count as ever."""
    parse_core = Program.parse_core

    @functools.wraps(parse_core)
    def parsed(self: Program, argv: Any) -> None:
        parse_core(self, argv)
        sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

    Program.parse_core = parsed  # type: ignore[method-assign]


def _wrap_profile() -> None:
    """``--profile=NAME`` counts wherever it stands, and chooses the project's file of settings.

    Taken out of the command line, for a task may get words of any number before it, and Invoke
    reads the file before it reads what stands behind a task.
    """
    normalize_argv, load_project = Program.normalize_argv, Config.load_project

    @functools.wraps(normalize_argv)
    def without_profile(self: Program, argv: Any) -> None:
        normalize_argv(self, argv)
        environment = dict(os.environ)
        os.environ.pop(PROFILE, None)  # a refusal's own commands carry no wrong one
        try:
            found = profiles.chosen(self.argv, environment)
        except Refused as problem:
            raise _told(problem) from None
        if self.argv == sys.argv:
            sys.argv[:] = found.words  # what a log or a lock calls this command
        self.argv = found.words
        if found.profile:
            os.environ[PROFILE] = found.profile

    @functools.wraps(load_project)
    def of_profile(self: Config, merge: bool = True) -> None:
        name, folder = profiles.current(os.environ), self._project_prefix
        if name and folder is not None:
            try:
                profiles.require(Path(folder), name)
            except Refused as problem:
                del os.environ[PROFILE]
                raise _told(problem) from None
            self._set(file_prefix=f"invoke.{name}")
        try:
            load_project(self, merge)
        finally:
            self._set(file_prefix=None)

    Program.normalize_argv = without_profile  # type: ignore[method-assign]
    Config.load_project = of_profile  # type: ignore[method-assign]


def _replace_answers() -> None:
    """What Invoke answers before it loads tasks: the version, and completion scripts."""
    replaced: tuple[tuple[Any, Callable[..., None]], ...] = (
        (Program, _print_version),
        (invoke.program, _print_completion_script),
    )
    for owner, answer in replaced:
        setattr(owner, answer.__name__.removeprefix("_"), answer)


def _print_version(program: Program) -> None:
    from agent.wire.version import __version__
    from moorage.ui import UI

    UI().page(f"Moorage {__version__}")


def _print_completion_script(shell: str, names: list[str]) -> None:
    from moorage.program import completion
    from moorage.ui import UI

    if shell not in completion.SCRIPTS:
        known = ", ".join(completion.SCRIPTS)
        raise ParseError(f"--print-completion-script takes one of {known}, not {shell!r}")
    UI().page(completion.SCRIPTS[shell].rstrip())


def _wrap_help() -> None:
    """Help is shown before a task is parsed, so that nothing asked for help can act."""
    parse_collection, parse_tasks = Program.parse_collection, Program.parse_tasks

    @functools.wraps(parse_collection)
    def collected(self: Program) -> None:
        if self.args.help.value is True:  # else Invoke shows its own page before there are tasks
            self.args.help._value = None
        parse_collection(self)

    @functools.wraps(parse_tasks)
    def parsed(self: Program) -> None:
        words = self.argv[1:]
        given = [word for word in self.core.unparsed if not word.startswith("-")]
        if any(word in _HELP or word.startswith("--help=") for word in words):
            _show_help(self, words)
        wrong_use.task_names[:] = self.collection.task_names
        if given and _is_a_namespace_alone(self, given[0]):
            _show_pages(self, given[:1])
        parse_tasks(self)

    Program.parse_collection = collected  # type: ignore[method-assign]
    Program.parse_tasks = parsed  # type: ignore[method-assign]


def _wrap_parser() -> None:
    """The parser knows the tasks that the words name, and no other: Invoke makes a context of each
    task and copies all of them, a tenth of what a whole nodes.trust takes this machine."""
    make_parser = Program._make_parser

    @functools.wraps(make_parser)
    def made(self: Program) -> Parser:
        if self.args.complete.value:
            return make_parser(self)
        words, lenient = set(self.core.unparsed), self.config.tasks.ignore_unknown_help
        contexts = [
            ParserContext(name, aliases, self.collection[name].get_arguments(lenient))
            for name, aliases in self.collection.task_names.items()
            if not words.isdisjoint((name, *aliases))
        ]
        return Parser(initial=self.initial_context, contexts=contexts)

    Program._make_parser = made  # type: ignore[method-assign]


def _is_a_namespace_alone(program: Program, word: str) -> bool:
    """Whether the word is a namespace and no task as well, as one with a default task is."""
    inner = program.collection.collections.get(word)
    return inner is not None and not inner.default


def _show_help(program: Program, words: list[str]) -> NoReturn:
    """The pages of whatever the command line names, else the overview.

    Raises Refused if the command line names something else.
    """
    from moorage.program import pages

    words = [word.removeprefix("--help=") for word in words]
    tasks, namespaces = program.collection.task_names, program.collection.collections
    names = pages.named(words, tasks, namespaces)
    given = [word for word in words if not word.startswith("-")]
    if given and not names:
        raise _told(wrong_use.unknown(given[0], [*tasks, *namespaces]))
    _show_pages(program, names)


def _show_pages(program: Program, names: list[str]) -> NoReturn:
    from agent.wire.version import __version__
    from moorage.program import pages
    from moorage.ui import UI

    collection, width = program.collection, pages.width()
    contexts = {one.name: one for one in collection.to_contexts()} if names else {}
    shown = [
        pages.task_page(name, collection[name], contexts[name], width)
        if name in contexts
        else pages.namespace(collection, name, width)
        for name in names
    ] or [pages.overview(collection, __version__, width)]
    UI().page("\n\n".join(shown))
    raise Exit


def _wrap_lists() -> None:
    """What ``--list`` prints may be read in part; what means nothing here is refused."""
    original = Program.parse_cleanup

    @functools.wraps(original)
    def parse_cleanup(self: Program) -> None:
        from moorage.ui import to_reader

        _refuse_meaningless(self)
        if self.args.complete.value:
            _complete(self)
        if not (self.tasks or self.args.list.value):
            _show_pages(self, [])
        with to_reader(sys.stdout):
            original(self)

    Program.parse_cleanup = parse_cleanup  # type: ignore[method-assign]


def _refuse_meaningless(program: Program) -> None:
    for name in sorted(_MEANINGLESS):
        if not program.args[name].got_value:
            continue
        rehearsal = name == "dry"
        raise _told(
            Refused(
                "wrong-use",
                f"--{name} has no meaning here; nothing was done",
                cause="a rehearsal is an option of the task that is rehearsed"
                if rehearsal
                else "the option is Invoke's, and is about shell commands in tasks",
                cure="give the task itself --dry-run; inv TASK --help says if the task has one"
                if rehearsal
                else "leave the option out",
            )
        )


def _complete(program: Program) -> NoReturn:
    from moorage.program import completion
    from moorage.ui import UI

    line = shlex.split(program.core.remainder) if program.core.remainder else []
    found = completion.candidates(program.collection, line, lambda: _settings_at(program))
    UI().page("\n".join(found))
    raise Exit


def _wrap_words() -> None:
    """A word that may be left out is taken where it is given; a number has to be one."""
    original = ParseMachine.handle

    @functools.wraps(original)
    def handle(self: ParseMachine, token: str) -> None:
        _refuse_option_as_word(self, token)
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


def _refuse_option_as_word(machine: ParseMachine, token: str) -> None:
    """Raises ParseError for an option that Invoke would take for a task's missing word."""
    context = machine.context
    if (
        context is not None
        and context.missing_positional_args
        and not machine.waiting_for_flag_value
        and _is_option(token)
        and token.partition("=")[0] not in context.flags
    ):
        from moorage.program import pages

        missing = pages.value(context.missing_positional_args[0])
        raise ParseError(f"{context.name} needs {missing} before {token}", context)


def _is_option(token: str) -> bool:
    """``-`` alone is a word: standard input."""
    return token.startswith("-") and token != "-"  # noqa: S105


def _optional_word(machine: ParseMachine, token: str) -> Argument | None:
    """Where the word belongs: to a positional argument that has a default and no value yet, or
    that takes any number of words."""
    context = machine.context
    if (
        context is None
        or _is_option(token)
        or token in machine.contexts
        or machine.waiting_for_flag_value
        or context.missing_positional_args
    ):
        return None
    places = context.positional_args
    return next((one for one in places if one.raw_value is None or one.kind is list), None)


def _wrap(owner: type, name: str, refusal_for: Callable[[Exception, Any], Refused | None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            return original(*args, **options)
        except Exit:
            raise  # told already
        except Exception as problem:
            refusal = refusal_for(problem, args[0])
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


def _wrap_empty_sections() -> None:
    """A section whose keys are all commented out is none, and ``-f`` names a file that is there.

    Invoke refuses the first (YAML reads it as null) and passes over the second in silence.
    """
    load_yaml, load_runtime = Config._load_yaml, Config.load_runtime

    @functools.wraps(load_yaml)
    def without_empty(self: Config, path: os.PathLike[Any]) -> Any:
        values = load_yaml(self, path)
        if values is None:
            return {}
        if not isinstance(values, Mapping):
            raise TypeError("sections of keys were expected, as registry: and below it host: ...")
        return {key: value for key, value in values.items() if value is not None}

    @functools.wraps(load_runtime)
    def that_is_there(self: Config, merge: bool = True) -> None:
        try:
            reading.require_given(self._runtime_path)
        except Refused as problem:
            raise _told(problem) from None
        load_runtime(self, merge)

    Config._load_yaml = Config._load_yml = without_empty  # type: ignore[method-assign]
    Config.load_runtime = that_is_there  # type: ignore[method-assign]


def _settings_at(program: Program) -> Settings:
    """The settings before any task runs. Raises Refused (see moorage.settings)."""
    program.update_config()
    program.config.load_collection(program.collection.configuration())  # the defaults
    return reading.settings_of(Context(program.config))
