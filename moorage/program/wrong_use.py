"""Words that Invoke's parser does not understand, as refusals with the nearest one that it does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from invoke.exceptions import ParseError

from moorage.errors import Refused

_NO_IDEA = re.compile(r"No idea what '(?P<word>.*)' is!", re.DOTALL)
# Known once the tasks are loaded; a ParseError does not carry them.
task_names: list[str] = []


def refusal(problem: Exception, _program: Any) -> Refused | None:
    """What is raised in the place of a ParseError of Invoke's; None for another exception."""
    if not isinstance(problem, ParseError):
        return None
    context = problem.context
    found = _NO_IDEA.search(str(problem))
    if found is None or context is None or (context.name is None and found["word"][:1] == "-"):
        task = f"{context.name} " if context is not None and context.name else ""
        return Refused("wrong-use", _plainly(str(problem)), cure=f"inv {task}--help")
    word = found["word"]
    if not word.startswith("-"):
        return unknown(word, task_names)
    from moorage.program import pages

    options = [flag for flag in context.flag_names() if flag.startswith("--")]
    meant = pages.nearest(word.partition("=")[0], options)
    return Refused(
        "wrong-use",
        f"{context.name} has no option {word}" + (f"; did you mean {meant}?" if meant else ""),
        cure=f"inv {context.name} --help",
    )


def _plainly(words: str) -> str:
    """Invoke's words about wrong use without what only its authors know."""
    needed = re.fullmatch(r"Flag <Argument: (\S+).*> needed value and was not given one!", words)
    if needed is not None:
        return f"--{needed[1].replace('_', '-')} needs a value"
    unknown = _NO_IDEA.search(words)
    return f"there is no option {unknown['word']}" if unknown is not None else words


def unknown(word: str, names: Iterable[str]) -> Refused:
    """The refusal of a word that is neither a task nor a namespace."""
    from moorage.program import pages

    meant = pages.nearest(word, names)
    return Refused(
        "wrong-use",
        f"there is no task {word!r}" + (f"; did you mean {meant}?" if meant else ""),
        cure=f"inv {meant} --help" if meant else "inv --list",
    )
