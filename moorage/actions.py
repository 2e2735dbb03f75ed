"""What a step is about to do, said before it is done: for questions, dry runs and diffs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One thing that will be done.

    ``text`` is a sentence fragment ("install docker.io with apt-get, through sudo"). ``asks``: it
    installs a package or writes outside the repository, so the user has to agree first. Where it
    changes a file, ``path`` names it and ``before``/``after`` are its contents (None: not there).
    """

    text: str
    asks: bool = False
    path: str = ""
    before: str | None = None
    after: str | None = None
