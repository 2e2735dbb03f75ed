"""A unified diff, as the agent sends it, put on the text it was made from. Pure."""

from __future__ import annotations

import re

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")
_NO_LINE_FEED = "\\"


def patched(before: str | None, diff: str) -> str:
    """``before`` (None: no file) with ``diff`` on it. Raises ValueError where it does not fit."""
    # Lines end at line feeds alone, as the agent wrote them; a carriage return is content.
    old = re.findall(r"[^\n]*\n|[^\n]+", before or "")
    new: list[str] = []
    position = 0
    last = ""  # the mark of the line before; "" until the first hunk, past the two file names
    for line in diff.split("\n"):
        mark, content = line[:1], line[1:]
        if hunk := _HUNK.match(line):
            # A hunk that takes no line away stands after the line it names.
            start = int(hunk[1]) - (hunk[2] != "0")
            new += old[position:start]
            position = start
            last = "@"
        elif mark == _NO_LINE_FEED and last == "+":
            new[-1] = new[-1].removesuffix("\n")
        elif mark in (" ", "-") and mark and last:
            if position >= len(old) or old[position].removesuffix("\n") != content:
                raise ValueError(f"the diff does not fit at line {position + 1}")
            new += [old[position]] if mark == " " else []
            position += 1
            last = mark
        elif mark == "+" and last:
            new.append(f"{content}\n")
            last = mark
    return "".join(new + old[position:])
