"""OpenSSH's own words: how a line falls into arguments, and what a pattern fits. Pure.

Sources: argv_split (misc.c), strdelim (misc.c) and match_pattern_list (match.c) of OpenSSH.
"""

from __future__ import annotations

import re
from functools import lru_cache

_BLANK = " \t\r\n"


class Malformed(ValueError):
    """A line that OpenSSH does not read either; the text says why."""


def keyword(line: str) -> tuple[str, str]:
    """``Host = web*`` -> ``("host", "web*")``: one ``=`` or blanks stand between the two.

    The keyword is in small letters. Raises Malformed for a quote that is not closed.
    """
    word, rest = delimited(line.strip(_BLANK + "\f"))
    return word.lower(), rest.lstrip(_BLANK)


def delimited(text: str) -> tuple[str, str]:
    """The first word, ended by blanks, by one ``=`` or by its quotes, and what is left.

    Raises Malformed for a quote that is not closed.
    """
    end = next((place for place, sign in enumerate(text) if sign in _BLANK + '"='), len(text))
    word, sign = text[:end], text[end : end + 1]
    if sign == '"':
        inner, quote, rest = text[end + 1 :].partition('"')
        if not quote:
            raise Malformed("a quote is not closed")
        return word + inner, rest.lstrip(_BLANK)
    rest = text[end + 1 :].lstrip(_BLANK)
    if sign and sign != "=" and rest.startswith("="):
        rest = rest[1:].lstrip(_BLANK)
    return word, rest


def arguments(text: str) -> tuple[str, ...]:
    """The arguments of a line: quotes, backslashes, and ``#`` that begins a comment.

    Raises Malformed for a quote that is not closed.
    """
    found: list[str] = []
    place = 0
    while place < len(text):
        if text[place] in " \t":
            place += 1
        elif text[place] == "#":
            break
        else:
            word, place = _argument(text, place)
            found.append(word)
    return tuple(found)


def _argument(text: str, place: int) -> tuple[str, int]:
    word, quote = "", ""
    while place < len(text):
        sign, after = text[place], text[place + 1 : place + 2]
        if sign == "\\" and after and (after in "'\"\\" or (not quote and after == " ")):
            word += after
            place += 1
        elif not quote and sign in " \t":
            break
        elif not quote and sign in "'\"":
            quote = sign
        elif sign == quote:
            quote = ""
        else:
            word += sign
        place += 1
    if quote:
        raise Malformed("a quote is not closed")
    return word, place


def fits(name: str, pattern: str) -> bool:
    """Whether a pattern with ``*`` and ``?`` fits the whole name. Brackets mean nothing."""
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    # One star for many: "a**b" and worse would be tried over and over.
    signs = re.sub(r"\*+", "*", pattern)
    words = {"*": ".*", "?": "."}
    return re.compile("".join(words.get(one) or re.escape(one) for one in signs), re.DOTALL)


def fits_list(name: str, patterns: str) -> bool:
    """Whether ``web*,!web9`` fits: one pattern does, and none behind a ``!``."""
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith("!"):
            if fits(name, pattern[1:]):
                return False
        else:
            found = found or fits(name, pattern)
    return found


def fits_hosts(name: str, patterns: str) -> bool:
    """The same for hosts in a Match line, where capitals and small letters are one."""
    return fits_list(name.lower(), patterns.lower())
