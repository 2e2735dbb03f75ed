"""Every error code explained: what it means, what was changed, what to do.

One TOML file per group. The messages themselves stand in the code that raises them; an explanation
says once, for all places that give the code, what a person needs who has only the code.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

# In the order of a first hour; the order of the list that `inv explain` shows.
FILES = (
    *("use", "certificates", "engine", "registry", "bundle", "reaching"),
    *("nodes", "agents", "pulls", "kubernetes", "lab"),
)
CHANGED = {
    "nothing": "Nothing was changed.",
    "this-host": "Nothing was changed on that node; other nodes are not affected.",
    "taken-back": "The change on that node was taken back; other nodes are not affected.",
    "stays": "What was done before stays; the same command goes on from there.",
    "partly": "Some files are not as they were before; the message names them.",
    "look-or-back": "A check changes nothing; a change that cannot be proved is taken back.",
}


class Explanation(NamedTuple):
    """One code: its group's title, and what a person needs to know."""

    code: str
    group: str
    means: str
    changed: str
    cure: str


@functools.cache
def explanations() -> dict[str, Explanation]:
    """All explanations by their code, in the order of the groups."""
    import tomllib

    found: dict[str, Explanation] = {}
    for name in FILES:
        text = (Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8")
        document = tomllib.loads(text)
        for code, said in document["codes"].items():
            changed = CHANGED[said["changed"]]
            found[code] = Explanation(code, document["title"], said["means"], changed, said["cure"])
    return found
