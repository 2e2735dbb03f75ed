"""OpenSSH's own answer: ``ssh -G HOST`` prints what it makes of its configuration for a host."""

from __future__ import annotations

import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import NamedTuple

from moorage import commands
from moorage.errors import MoorageError
from moorage.fleet.openssh.files import unreadable

# A Match exec may look something up; one that never ends must not hold a run for ever.
_SECONDS = 60

_WANTED = frozenset(
    re.findall(
        r"\w+",
        """
        addressfamily bindaddress bindinterface certificatefile connecttimeout globalknownhostsfile
        hashknownhosts hostkeyalias hostname identitiesonly identityagent identityfile port
        proxycommand proxyjump proxyusefdpass user userknownhostsfile
        """,
    )
)


class Query(NamedTuple):
    """What ``ssh`` is asked. ``user`` is "" and ``port`` 0 if nobody said one; ``options`` are
    ``Keyword=value``; ``config``: the file in place of the usual ones, "" for those."""

    host: str
    user: str = ""
    port: int = 0
    options: tuple[str, ...] = ()
    config: str = ""


def find() -> Program | None:
    """OpenSSH's ssh; None if there is none, or one that cannot be asked (dropbear's)."""
    path = shutil.which("ssh")
    return None if path is None else _known(path)


@cache
def _known(path: str) -> Program | None:
    try:
        usual = commands.run(
            [path, "-T", "-G", "-F", os.devnull, "localhost"], timeout=_SECONDS, check=False
        )
        version = commands.run([path, "-V"], timeout=_SECONDS, check=False).stderr
    except (MoorageError, OSError):
        return None
    if usual.returncode != 0 or not version.startswith(b"OpenSSH"):
        return None
    identities = _parsed(usual.stdout).get("identityfile", ())
    return Program(path, version.decode(errors="replace").strip(), identities)


class Program:
    """``ssh``, what it calls its version, and the keys it tries if none is named."""

    def __init__(self, path: str, version: str, identities: tuple[str, ...]) -> None:
        self.version = version
        self._path = path
        self._identities = identities

    def options(self, query: Query) -> dict[str, tuple[str, ...]]:
        """Every option for the host, but for the keys that ssh would try at any host.

        Raises Refused (``bad-ssh-config``) with ssh's own words, which name file and line.
        """
        done = self._run(query)
        if b"jumphost loop" in done[2]:
            # `Host *` with a ProxyJump holds for the jump host too; that is reached without it.
            query = query._replace(options=("ProxyJump=none", *query.options))
            done = self._run(query)
        status, out, said = done
        if status != 0:
            words = commands.last_words(said)
            raise unreadable(query.config or "the OpenSSH configuration", f"ssh says: {words}")
        found = {key: value for key, value in _parsed(out).items() if key in _WANTED}
        if found.get("identityfile") == self._identities:
            del found["identityfile"]
        for key in ("userknownhostsfile", "globalknownhostsfile"):
            found[key] = _files(found.get(key, ("none",))[0])
        return found

    def _run(self, query: Query) -> tuple[int, bytes, bytes]:
        try:
            done = commands.run(
                [self._path, "-T", "-G", *_words(query)], timeout=_SECONDS, check=False
            )
        except MoorageError as problem:
            raise unreadable(
                query.config or "the OpenSSH configuration",
                f"{problem.message} for {query.host}: a Match exec in it may hang",
            ) from None
        return done.returncode, done.stdout, done.stderr


def _words(query: Query) -> list[str]:
    words = ["-F", query.config] if query.config else []
    if query.user:
        words += ["-l", query.user]
    if query.port:
        words += ["-p", str(query.port)]
    for option in query.options:
        words += ["-o", option]
    return [*words, query.host]


def _parsed(content: bytes) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in content.decode(errors="surrogateescape").splitlines():
        key, _, value = line.partition(" ")
        found[key.lower()] = (*found.get(key.lower(), ()), value)
    return found


def _files(text: str) -> tuple[str, ...]:
    """The names in a list that has blanks between them and, unmarked, within them.

    As many words are one name as make the longest that is there.
    """
    words = text.split(" ")
    found: list[str] = []
    while words:
        counts = range(len(words), 1, -1)
        size = next((one for one in counts if Path(" ".join(words[:one])).exists()), 1)
        found.append(" ".join(words[:size]))
        words = words[size:]
    return tuple(found)
