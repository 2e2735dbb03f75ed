"""The page as HTML: whole from the server, so that a browser without scripts has the tables too.

Every word of a node, an image or a pod is escaped by Jinja's autoescape: none of them is ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.output.typed import typed
from moorage.web import words
from moorage.web.story import trouble

if TYPE_CHECKING:
    from jinja2 import Environment

    from moorage.errors import Refused
    from moorage.web.actions import Question
    from moorage.web.story import Section

HERE = Path(__file__).parent / "shown"
LANGUAGES = ("en", "zh")


def language(accepted: str) -> str:
    """``zh`` or ``en`` by the header Accept-Language (RFC 9110, 12.5.4); ``en`` for others."""
    found = []
    for place, part in enumerate(accepted.split(",")):
        tag, _, weight = part.strip().lower().partition(";")
        match = re.fullmatch(r"\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", weight)
        quality = float(match[1]) if match else 1.0
        name = tag.strip().partition("-")[0]
        if name in LANGUAGES and quality > 0:
            found.append((-quality, place, name))
    return min(found)[2] if found else "en"


def whole(registry: str, sections: Mapping[str, Section], lang: str, version: int) -> str:
    """The page, with every section; ``version``: that of the story that it shows."""
    template = _environment().get_template("page.html.j2")

    def shown(name: str, section: Section) -> Any:
        from markupsafe import Markup

        return Markup(part(name, section, lang))  # noqa: S704 - escaped by its own template

    return template.render(
        registry=registry, sections=sections, lang=lang, say=_say(lang), show=shown, version=version
    )


def part(name: str, section: Section, lang: str) -> str:
    """One section alone, as the page's script puts it in the place of the old one."""
    from moorage.web.drawing import drawn

    template = _environment().get_template("section.html.j2")
    given = {"say": _say(lang), "word": _word(lang), "tell": _tell(lang), "drawn_of": drawn}
    troubles = [words.told(one, lang) for one in section.troubles]
    return typed(template.render(name=name, section=section, troubles=troubles, **given))


def confirmation(registry: str, question: Question, token: str, lang: str) -> str:
    """What is asked before an action; ``token`` goes back with the agreement."""
    template = _environment().get_template("confirm.html.j2")
    text = template.render(
        registry=registry, question=question, token=token, lang=lang,
        say=_say(lang), tell=_tell(lang),
    )  # fmt: skip
    return typed(text)


def plain(text: str, lang: str) -> str:
    """One sentence of ours without a page around it."""
    return typed(_tell(lang)(text))


def refused(problem: Refused, lang: str) -> str:
    """Why something is not done, and the cure."""
    told = words.told(trouble("", problem), lang)
    why = f"{told.message}: {told.cause}." if told.cause else f"{told.message}。"
    return typed(f"{why}\n{told.cure}")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _say(lang: str) -> Any:
    """Our own words in the reader's language; what nodes and pods say stays as they said it."""
    return words.chinese if lang == "zh" else _english


def _word(lang: str) -> Any:
    """The same within a line, where English has no capital."""
    return words.chinese if lang == "zh" else str


def _tell(lang: str) -> Any:
    """A value: words of ours in the reader's language, and a name as it is."""
    return words.value if lang == "zh" else str


def _english(text: str) -> str:
    return {"pods": "Pods that cannot pull"}.get(text, text[:1].upper() + text[1:])
