"""What the page says in Chinese: its own words, values with their templates, and errors by code.

A name that somebody else chose stays as it is, and so does a command. What a program said in
English is shown beside an error, as its own words.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.output.said import in_words

if TYPE_CHECKING:
    from moorage.web.story import StoryTrouble

_TABLE = Path(__file__).parent / "chinese.toml"
# What a cure that is nothing but commands begins with, each part of it.
_PROGRAMS = (
    "inv|kubectl|docker|sudo|systemctl|journalctl|ssh|ssh-keygen|ssh-copy-id|ssh-add|eval|curl"
    "|crictl|ctr|df|ls|snap|git|dmesg|mount|timedatectl|ip|apt-get|mkdir|python3|dockerd|restic"
)
_PART = rf"(?:{_PROGRAMS})(?: (?:\"\$\([\w-]+\)\"|[^\s;()]*[^\s;(),:]))*"
_COMMANDS = re.compile(rf"{_PART}(?:(?: && | \| |; ){_PART})*")
# Words of English prose, which no command of a cure has.
_PROSE = re.compile(
    r"(?<![\w./=-])(?:a|again|an|and|answers|are|as|at|brings|by|explains|for|gives|in|installs|is"
    r"|it|lists|makes|names|of|on|or|says|sends|serves|shows|so|starts|tells|that|the|then|there"
    r"|this|to|why|with|writes)(?![\w./=-])"
)


class Meaning(NamedTuple):
    """What an error of one code means, and what to do; "" if the error's own cure is a command."""

    means: str
    cure: str


@dataclass(frozen=True)
class ShownTrouble:
    """A trouble as it is read. ``original``: what programs said in English, "" if that is shown."""

    what: str
    message: str
    cause: str
    cure: str
    fix: str
    original: str = ""


def chinese(text: str) -> str:
    """Words of the page itself: a title, a label, a note."""
    return _words().get(text) or value(text)


def value(text: object) -> str:
    """A value: what is ours of it in Chinese."""
    return in_words(text, lambda one: _words().get(one, one), lambda code: _meaning(code).means)


def told(one: StoryTrouble, lang: str) -> ShownTrouble:
    """The trouble in the reader's language: in Chinese by its code, beside its own words."""
    fault = one.fault
    if lang != "zh":
        return ShownTrouble(one.what, fault.message, fault.cause, fault.cure, one.fix)
    known = _meaning(fault.code)
    original = "; ".join(part for part in (fault.message, fault.cause, fault.cure) if part)
    cure = fault.cure if is_command(fault.cure) else known.cure
    what = one.what or one.about
    return ShownTrouble(what, known.means or _meaning("").means, "", cure, one.fix, original)


def is_command(cure: str) -> bool:
    """Whether a cure is nothing but commands to type, in any language the same."""
    return _COMMANDS.fullmatch(cure) is not None and not _PROSE.search(cure)


def _meaning(code: str) -> Meaning:
    return Meaning(*_table()["faults"].get(code, ("", "")))


def _words() -> dict[str, str]:
    found: dict[str, str] = _table()["words"]
    return found


@cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))
