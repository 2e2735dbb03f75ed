"""Words of ours that another language can say too: a text in English that remembers its template.

A name that somebody else chose (of a node, a tag, a file) is never looked up: it stays a plain
``str``, and is shown as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping


class Said(str):
    """A text with the template that it was made of and what filled it.

    ``Said(text)`` is a word that may have its like in another language; :func:`said` fills one.
    """

    template: str
    given: Mapping[str, object]

    def __new__(
        cls, text: str, template: str = "", given: Mapping[str, object] | None = None
    ) -> Said:
        made = super().__new__(cls, text)
        made.template, made.given = template or text, given or {}
        return made


class Joined(str):
    """Several texts in one."""

    mark: str
    parts: tuple[str, ...]

    def __new__(cls, text: str, mark: str = "", parts: tuple[str, ...] = ()) -> Joined:
        made = super().__new__(cls, text)
        made.mark, made.parts = mark, parts or (text,)
        return made


class Coded(str):
    """What an error says; ``key``, its code, is what another language tells it by."""

    key: str

    def __new__(cls, text: str, key: str = "") -> Coded:
        made = super().__new__(cls, text)
        made.key = key
        return made


def said(template: str, /, **given: object) -> Said:
    """``template`` (``str.format``) filled with ``given``."""
    return Said(template.format(**given), template, given)


def joined(mark: str, parts: Iterable[str]) -> Joined:
    """As ``mark.join`` does it."""
    held = tuple(parts)
    return Joined(mark.join(held), mark, held)


def in_words(text: object, word: Callable[[str], str], fault: Callable[[str], str]) -> str:
    """The text in another language: ``word`` has its templates and marks, ``fault`` what an error
    of a code says, "" if it does not know the code. All else stays as it is."""
    if isinstance(text, Joined):
        return word(text.mark).join(in_words(one, word, fault) for one in text.parts)
    if isinstance(text, Coded):
        return fault(text.key) or str(text)
    if not isinstance(text, Said):
        return str(text)
    if not text.given:
        return word(text.template)
    given = {name: in_words(one, word, fault) for name, one in text.given.items()}
    return word(text.template).format(**given)
