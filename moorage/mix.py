"""Which nodes: a mix such as ``1.6,1.7*2,2`` of the containerd lines that Debian carries."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moorage.errors import Refused

MOST = 64


@dataclass(frozen=True)
class ContainerdLine:
    """A containerd line: the Debian suite that carries it, and how its version begins.

    sid's 2.x moves on, so nothing more of a version is ever asked for.
    """

    name: str
    suite: str
    version: str


LINES = {
    line.name: line
    for line in (
        ContainerdLine("1.6", "bookworm", "1.6."),
        ContainerdLine("1.7", "trixie", "1.7."),
        ContainerdLine("2", "sid", "2."),
    )
}


def parse_mix(text: str, *, source: str = "--nodes") -> tuple[ContainerdLine, ...]:
    """``1.6,1.7*2,2`` -> the line of lab1, of lab2, and so on; 1 to 64 of them.

    ``source`` names where the text comes from. Raises Refused with what is expected.
    """
    chosen: list[ContainerdLine] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([^\s*]+)\s*(?:\*\s*([0-9]{1,4}))?\s*", part)
        name = found[1] if found else part.strip()
        line = LINES.get(name)
        if found is None or line is None:
            raise _refused(text, source, _hint(name, text))
        count = int(found[2] or 1)
        if count == 0:
            raise _refused(text, source, f"{part.strip()} asks for no node at all")
        if len(chosen) + count > MOST:
            raise _refused(text, source, f"it asks for more than {MOST} nodes")
        chosen += [line] * count
    return tuple(chosen)


def _hint(name: str, text: str) -> str:
    if not name:
        return "it is empty" if not text.strip() else "there is nothing between two commas"
    if re.fullmatch(r"[1-9][0-9]*", name) and text.strip() == name:
        return f"{name} is not a containerd line; for {name} nodes of one line say 2*{name}"
    near = next((line for line in LINES if name.startswith(f"{line}.")), "")
    return f"{name} is not a containerd line" + (f"; did you mean {near}?" if near else "")


def _refused(text: str, source: str, cause: str) -> Refused:
    return Refused(
        "bad-mix",
        f"{source}: {text!r} is not a mix of nodes",
        cause=cause,
        cure=f"lines of containerd ({', '.join(LINES)}), with commas, and *N for N of one: "
        "1.6,1.7*2,2",
    )
