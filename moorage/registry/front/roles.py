"""What a login may do: its name, its role, its repositories, its end. Pure."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from moorage.errors import Refused
from moorage.settings import REPOSITORY

ROLES = ("pull", "push", "admin")  # each may do what those before it may
EVERYTHING = "**"
# RFC 7617, section 2: a user's name has no colon. Nothing else here needs an escape in the front's
# map, in JSON or in a shell's single quotes.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+$-]{0,95}")
_DAY = 86400
_UNITS = {"h": 3600, "d": _DAY, "w": 7 * _DAY}


@dataclass(frozen=True)
class User:
    """A login. ``expires``: Unix seconds, 0 for never; ``purpose``: what Moorage made it for, "" if
    a user asked for it; ``proofs``: HMACs of the passwords that are right (two while one follows
    the other), so no ``repr`` shows them.
    """

    name: str
    role: str
    repositories: tuple[str, ...] = (EVERYTHING,)
    expires: int = 0
    purpose: str = ""
    proofs: tuple[str, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """What may be shown: no proof."""
        end = datetime.datetime.fromtimestamp(self.expires, datetime.UTC)
        return {
            "name": self.name,
            "role": self.role,
            "repositories": list(self.repositories),
            "expires": end.isoformat() if self.expires else None,
            "purpose": self.purpose,
        }


def proof(key: bytes, password: str) -> str:
    """HMAC-SHA256 in upper-case hexadecimal digits, as HAProxy's ``hex`` gives it."""
    return hmac.new(key, password.encode(), hashlib.sha256).hexdigest().upper()


def rows(users: Iterable[User]) -> bytes:
    """The front's map: who has a login, as what, and the repositories granted to it."""
    lines: list[str] = []
    for user in users:
        scope = "all" if EVERYTHING in user.repositories else "some"
        lines += [f"l:{user.name}:{one}: {user.role}|{user.expires}|{scope}" for one in user.proofs]
        lines += [f"g:{user.name}:{_prefix(one)} 1" for one in user.repositories]
    return "".join(f"{line}\n" for line in lines).encode()


def _prefix(pattern: str) -> str:
    """What the path of a granted repository, with a colon behind it, begins with."""
    return pattern.removesuffix(EVERYTHING) if pattern.endswith(EVERYTHING) else f"{pattern}:"


def grants(pattern: str, repository: str) -> bool:
    """Whether the pattern is for that repository, as the front judges it."""
    return f"{repository}:".startswith(_prefix(pattern))


def haproxy_key(key: bytes) -> str:
    """The key as HAProxy's ``hmac`` converter takes it."""
    return base64.b64encode(key).decode("ascii")


def check_name(name: str) -> str:
    """The name. Raises Refused (``bad-user-name``) if no login can be called so."""
    if NAME.fullmatch(name):
        return name
    raise Refused(
        "bad-user-name",
        f"no login can be called {name!r}",
        cause="a name has 1 to 96 letters, digits, '.', '_', '-', '@', '+' and '$', and begins "
        "with a letter or a digit",
        cure="inv users.add 'robot$ci' --role=push",
    )


def check_role(role: str) -> str:
    """The role. Raises Refused (``unknown-role``)."""
    if role in ROLES:
        return role
    raise Refused(
        "unknown-role",
        f"there is no role {role!r}" if role else "a login needs a role",
        cause="pull reads; push also writes; admin also deletes",
        cure="--role=pull, --role=push or --role=admin",
    )


def check_patterns(words: str) -> tuple[str, ...]:
    """``a/b,team/**`` -> patterns; "" for all. Raises Refused (``bad-pattern``)."""
    given = tuple(dict.fromkeys(word.strip() for word in words.split(","))) if words else ()
    for pattern in given:
        plain = pattern.removesuffix("/**")
        if pattern != EVERYTHING and not REPOSITORY.fullmatch(plain):
            raise Refused(
                "bad-pattern",
                f"{pattern!r} names no repositories",
                cause="a pattern is a repository (team/app), all below a name (team/**), or all "
                "there are (**); names are in lower case",
                cure="--repositories='team/**,base/python'",
            )
    return (EVERYTHING,) if EVERYTHING in given or not given else given


def check_expiry(words: str, now: datetime.datetime) -> int:
    """``90d``, ``12h``, ``4w`` -> the end in Unix seconds; "" for never: 0. Raises Refused."""
    if not words:
        return 0
    found = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", words)
    if found is None:
        raise Refused(
            "bad-expiry",
            f"--expires={words} is not a time",
            cause="a number of hours, days or weeks is expected",
            cure="--expires=90d",
        )
    return int(now.timestamp()) + int(found[1]) * _UNITS[found[2]]
