"""A unified diff, as the agent sends it, put on the text it was made from. Pure."""

from __future__ import annotations

import re

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")
_NO_NEWLINE = "\\ No newline at end of file"


def patched(before: str | None, diff: str) -> str:
    """``before`` (None: no file) with ``diff`` on it. Raises ValueError where it does not fit."""
    old = (before or "").splitlines(keepends=True)
    new: list[str] = []
    position = 0
    last = ""
    # Lines are split at line feeds alone, as the agent wrote them; a carriage return is content.
    for line in diff.split("\n"):
        hunk = _HUNK.match(line)
        if hunk:
            start = int(hunk[1]) - (0 if hunk[2] == "0" else 1)
            new += old[position:start]
            position = start
        elif line.startswith(_NO_NEWLINE[:2]):
            if last != "-":
                new[-1] = new[-1].removesuffix("\n")
        elif line.startswith(("---", "+++")) and not new and position == 0 and not last:
            continue
        elif line[:1] in (" ", "-"):
            if position >= len(old) or old[position].rstrip("\n") != line[1:].rstrip("\n"):
                raise ValueError(f"the diff does not fit at line {position + 1}")
            if line[0] == " ":
                new.append(old[position])
            position += 1
            last = line[0]
        elif line[:1] == "+":
            new.append(line[1:] + "\n")
            last = "+"
    return "".join(new + old[position:])
