"""The table of troubles: every row, in the order in which they are compared with what was said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from agent.wire.troubles import answers, content, image, machine, rights, tls, way
from agent.wire.troubles.row import Row, Trouble

# The first row that fits is told. What is said of an image that is not there comes last: runtimes
# end other complaints with "not found" as well.
TROUBLES: tuple[Trouble, ...] = (
    *machine.ROWS,
    *tls.ROWS,
    *answers.ROWS,
    *content.ROWS,
    *way.ROWS,
    *rights.ROWS,
    *image.ROWS,
)

Side = Literal["node", "cluster", "engine"]


def rows(side: Side, troubles: Iterable[Trouble] = TROUBLES) -> tuple[Row, ...]:
    """The troubles that a side reports, with its own words and texts."""
    texts = {
        "node": lambda one: one.node,
        "cluster": lambda one: one.cluster,
        "engine": lambda one: one.engine,
    }
    each = ((one, texts[side](one) or one.told) for one in troubles)
    return tuple(
        Row(one.code, told.words or one.words, one.trust, told)
        for one, told in each
        if told is not None
    )
