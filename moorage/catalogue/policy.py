"""What users write of a policy -> seconds and patterns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from moorage.errors import Refused

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,6})([smhdw])")


@dataclass(frozen=True)
class RetentionPolicy:
    """Which tags stay. A tag goes if it is neither among the ``keep`` newest of its repository nor
    younger than ``older_than`` seconds; None for either: that says nothing, and with both None no
    tag goes. ``untagged``: manifests without a tag go, too. ``protect``: patterns of what stays."""

    keep: int | None = None
    older_than: float | None = None
    untagged: bool = False
    protect: tuple[str, ...] = ()

    @property
    def of_tags(self) -> bool:
        """Whether any tag may go at all."""
        return self.keep is not None or self.older_than is not None

    def protects(self, repository: str, tag: str) -> str:
        """The first pattern that does, "" for none: of the repository, of the tag, or of both."""
        names = (f"{repository}:{tag}", repository, tag)
        return next((p for p in self.protect if any(fnmatchcase(n, p) for n in names)), "")


def parse(keep: str, older_than: str, protect: str, *, untagged: bool) -> RetentionPolicy:
    """The policy of a command line. Raises Refused (``wrong-use``) for what is none."""
    if keep and not (keep.isascii() and keep.isdigit() and len(keep) < 7):
        raise Refused("wrong-use", f"invalid --keep {keep!r}: not a number", cure="--keep=10")
    policy = RetentionPolicy(
        int(keep) if keep else None,
        seconds("--older-than", older_than) if older_than else None,
        untagged,
        tuple(one.strip() for one in protect.split(",") if one.strip()),
    )
    if not policy.of_tags and not untagged:
        raise Refused(
            "wrong-use",
            "nothing says what may go",
            cause="neither --keep, --older-than nor --untagged was given",
            cure="inv images.prune --keep=10 --older-than=30d --dry-run",
        )
    return policy


def seconds(option: str, text: str) -> float:
    """``30d`` -> seconds; s, m, h, d and w are known. Raises Refused (``wrong-use``)."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise Refused(
            "wrong-use",
            f"invalid {option} {text!r}: not a duration",
            cause="a duration is a number and one of s, m, h, d and w",
            cure=f"{option}=30d",
        )
    return float(int(found[1]) * _UNITS[found[2]])
