"""What people and programs see: words, phases, progress, tables, diffs, JSON. Only this prints.

Words and progress go to stderr; the result goes to stdout, as a table or, with ``--json``, as one
document and nothing else. NO_COLOR, a pipe and a dumb terminal are Rich's own business.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from moorage import output
from moorage.errors import MoorageError, Refused
from moorage.output.typed import changes, typed, typed_document
from moorage.redaction import keep_secret

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from moorage.actions import Action

_log = logging.getLogger("moorage.said")
# Before a command has its log, Python itself would print what is logged beside what is said.
_log.addHandler(logging.NullHandler())


@contextmanager
def to_reader(stream: TextIO) -> Iterator[None]:
    """What is written to ``stream`` within the block is for whoever reads it, as far as they do.

    Raises SystemExit where they have closed their end, as ``| head`` does.
    """
    try:
        try:
            yield
        finally:
            stream.flush()
    except BrokenPipeError:
        _end(stream)


def _end(stream: TextIO) -> NoReturn:
    """With the code that shells have for a tool which SIGPIPE ended: signal(7)."""
    # Python flushes once more at its end: that goes nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    raise SystemExit(128 + signal.SIGPIPE) from None


def _longest_words(rows: Sequence[Sequence[str]]) -> list[int]:
    """The columns that the longest word of each column takes, such as a path."""
    from rich.cells import cell_len

    return [
        max((cell_len(word) for cell in column for word in cell.split()), default=1)
        for column in zip(*rows, strict=True)
    ]


class UI:
    """One run's voice. ``as_json``: stdout carries one document; ``yes``: questions are agreed.

    ``as_lines``: stdout carries a JSON line an event, the document being the last of them.
    """

    def __init__(self, *, as_json: bool = False, as_lines: bool = False, yes: bool = False) -> None:
        self.as_json = as_json or as_lines
        self.as_lines = as_lines
        self.yes = yes
        self._words: Console | None = None
        self._result: Console | None = None
        self._phases = 0
        self._phase = 0
        # Whether the one document has been given.
        self.documented = False

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: both ends of the conversation are a terminal."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def is_live(self) -> bool:
        """Whether a person watches both streams, so that a board tells it all."""
        console = self._err()
        return console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty()

    # -- words, on stderr -------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line of progress."""
        _log.info("%s", text)
        self._err().print(typed(text), markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line worth noticing: something was announced, skipped or kept."""
        _log.info("%s", text)
        self._err().print(
            f"  {typed(text)}", style="dim", markup=False, highlight=False, soft_wrap=True
        )

    def trace(self, text: str) -> None:
        """A line that ``-v`` or ``-vv`` asked for: a program, a request, a session."""
        self._err().print(text, style="dim", markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        _log.warning("%s", text)
        self._err().print(
            f"! {typed(text)}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )

    def error(self, problem: MoorageError) -> None:
        """Formats a failure: where and what, then why, then what to type."""
        _log.error("%s", json.dumps(problem.to_json(), ensure_ascii=False))
        where = ": ".join(part for part in (problem.host, problem.path) if part)
        message = problem.message
        if where and where not in message:
            message = f"{where}: {message}"
        console = self._err()
        console.print(
            f"error: {typed(message)}",
            style="bold red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        more = f"inv explain {problem.code}" if problem.code != "wrong-use" else ""
        rows = (("cause", problem.cause), ("cure", problem.cure), ("more", more))
        for title, text in rows:
            if text:
                console.print(
                    f"  {title}: {typed(text)}", markup=False, highlight=False, soft_wrap=True
                )

    def phases(self, total: int) -> None:
        """Begins a numbered walk of ``total`` phases."""
        self._phases, self._phase = total, 0

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Names what is under way and, when it ends, how long it took."""
        self._phase += 1
        number = f"[{self._phase}/{self._phases}] " if self._phases else ""
        started = time.monotonic()
        self.say(f"{number}{title}")
        yield
        spent = time.monotonic() - started
        if spent >= 1:
            self.note(f"{title}: {spent:.1f} s")

    @contextmanager
    def progress(self, text: str) -> Iterator[output.Update]:
        """A live bar on a terminal; on a pipe or a dumb one, a line at the start and at the end."""
        console = self._err()
        if not console.is_terminal or console.is_dumb_terminal:
            self.note(f"{text} ...")
            yield output.unheard
            return
        with self._bar(console) as bar:
            task = bar.add_task(text, total=None)

            def update(
                *, done: float | None = None, total: float | None = None, text: str | None = None
            ) -> None:
                bar.update(task, completed=done, total=total, description=text)

            yield update

    @contextmanager
    def board(self, text: str) -> Iterator[Callable[[Sequence[str]], None]]:
        """A few live lines on a terminal, replaced as they change; on a pipe, ``text`` alone."""
        console = self._err()
        if not console.is_terminal or console.is_dumb_terminal:
            self.note(f"{text} ...")
            yield lambda _lines: None
            return
        from rich.live import Live
        from rich.text import Text

        with Live(console=console, transient=True, refresh_per_second=4) as live:
            yield lambda lines: live.update(
                Text("\n".join(f"  {line}" for line in lines), overflow="ellipsis", no_wrap=True)
            )

    def confirm(self, actions: Sequence[str], *, question: str = "Go on?") -> None:
        """Announces ``actions`` and asks before they are done; ``--yes`` agreed beforehand.

        Raises Refused if there is nobody to ask, or the answer is no. Nothing was changed then.
        """
        if not actions:
            return
        self.say("This will:")
        for action in actions:
            self.say(f"  - {action}")
        if self.yes:
            return
        if not self.interactive:
            raise Refused(
                "not-confirmed",
                "nothing was changed: the steps above need your agreement",
                cause="there is no terminal to ask on, and --yes was not given",
                cure="run the same command again with --yes",
            )
        if not self.agrees(question):
            raise Refused(
                "not-confirmed",
                "nothing was changed",
                cause="you did not agree",
                cure="run it again and answer y, or give --yes",
            )

    def agrees(self, question: str) -> bool:
        """The answer of whoever sits at the terminal; anything but yes is no."""
        self._err().print(f"{question} [y/N] ", end="", markup=False, highlight=False)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def ask_secret(self, question: str) -> str:
        """A password, typed unseen; without a terminal the first line of stdin.

        Raises Refused if nothing comes.
        """
        if sys.stdin.isatty():
            import getpass

            secret = getpass.getpass(f"{question}: ", stream=sys.stderr)
        else:
            secret = sys.stdin.readline().removesuffix("\n")
        if not secret:
            raise Refused(
                "no-password",
                f"no {question} was given",
                cause="the answer was empty, or there was no terminal to ask on",
                cure="type it on a terminal, or give it as one line on stdin",
            )
        return keep_secret(secret)

    def diff(self, path: str, before: str | None, after: str | None, *, host: str = "") -> None:
        """A unified diff of one file; None stands for a file that is not there."""
        name = f"{host}:{path}" if host else path
        lines = difflib.unified_diff(
            (before or "").splitlines(),
            (after or "").splitlines(),
            "/dev/null" if before is None else name,
            "/dev/null" if after is None else name,
            lineterm="",
        )
        self.diff_text("\n".join(lines))

    def foretell(self, actions: Iterable[Action | str]) -> None:
        """What would be done, a line each; a file's change as a diff below its line."""
        for action in actions:
            if isinstance(action, str):
                self.show(f"would {action}")
                continue
            self.show(f"would {action.text}")
            if action.path:
                self.diff(action.path, action.before, action.after, host="localhost")

    def diff_text(self, text: str) -> None:
        """An already unified diff. To stderr under ``--json``, else to stdout."""
        console = self._err() if self.as_json else self._out()
        styles = {"+": "green", "-": "red", "@": "cyan"}
        for line in text.splitlines():
            console.print(
                line, style=styles.get(line[:1], ""), markup=False, highlight=False, soft_wrap=True
            )

    # -- results, on stdout -----------------------------------------------------------------

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A result for people; silent under ``--json``."""
        if self.as_json:
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        cells = [[typed(cell) for cell in row] for row in rows]
        words = _longest_words([list(columns), *cells])
        console = self._out()
        # Columns are three apart; a terminal too narrow for their words gets records instead.
        if sys.stdout.isatty() and sum(words) + 3 * len(words) > console.width:
            self._records(columns, cells)
            return
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column, longest in zip(columns, words, strict=True):
            table.add_column(column, overflow="fold", min_width=longest)
        for row in cells:
            table.add_row(*map(Text, row))
        if sys.stdout.isatty():
            console.print(table)
            return
        # A pipe has no width: whatever reads it gets each row as a line, and no blanks at its end.
        with console.capture() as drawn:
            console.print(table, no_wrap=True, crop=False)
        lines = (line.rstrip() for line in drawn.get().rstrip().splitlines())
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)

    def _records(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows as lines that the terminal itself wraps, so that what is copied stays whole."""
        for row in rows:
            for column, cell in zip(columns, row, strict=True):
                if cell:
                    self.show(f"{column}: {cell}" if column else cell)
            self.show("")

    def present(self, parts: output.Parts) -> None:
        """Prints each part of what a pure function has composed."""
        for part in parts:
            match part:
                case output.Line(text):
                    self.show(text)
                case output.Table(columns, rows):
                    self.table(columns, rows)
                case output.Patch(text):
                    self.diff_text(text)
                case output.Diff(path, before, after):
                    self.diff(path, before, after)
                case output.Note(text):
                    self.note(text)
                case output.Warn(text):
                    self.warn(text)
                case output.PartFailure(problem):
                    self.error(problem)

    def show(self, text: str) -> None:
        """A line of the result for people; silent under ``--json``."""
        if not self.as_json:
            self._out().print(typed(text), markup=False, highlight=False, soft_wrap=True)

    def page(self, text: str) -> None:
        """A page of help on stdout, as it is: without a table's or a terminal's means."""
        with to_reader(sys.stdout):
            sys.stdout.write(typed(text) + "\n")

    def stream(self, line: str) -> None:
        """A line of passed-through output, such as a log: stdout, or stderr under ``--json``."""
        console = self._err() if self.as_json else self._out()
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    def event(self, event: Mapping[str, Any]) -> None:
        """One JSON line of a run under ``--json-lines``; silent otherwise."""
        if self.as_lines:
            with to_reader(sys.stdout):
                sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")

    def document(self, document: Any) -> None:
        """The one document of a run under ``--json``, the last line under ``--json-lines``."""
        self.documented = True
        if self.as_json and changes():
            document = typed_document(document)
        if self.as_lines:
            self.event({"event": "report", **document})
        elif self.as_json:
            # Indented for eyes only: that takes ten times as long, a second for 1,000 nodes.
            indent = 2 if sys.stdout.isatty() else None
            with to_reader(sys.stdout):
                sys.stdout.write(json.dumps(document, indent=indent, ensure_ascii=False) + "\n")

    # -- consoles ---------------------------------------------------------------------------

    def _err(self) -> Console:
        if self._words is None:
            from rich.console import Console

            self._words = Console(stderr=True, emoji=False)
            self._words.on_broken_pipe = partial(_end, sys.stderr)  # type: ignore[method-assign]
        return self._words

    def _out(self) -> Console:
        if self._result is None:
            from rich.console import Console

            # A pipe has no width; folding a path would break what reads it.
            width = None if sys.stdout.isatty() else 10_000
            self._result = Console(width=width, emoji=False)
            self._result.on_broken_pipe = partial(_end, sys.stdout)  # type: ignore[method-assign]
        return self._result

    def _bar(self, console: Console) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        return Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
