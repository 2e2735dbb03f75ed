"""OpenSSH's known_hosts, read as sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT", says. Pure but for `read`.

paramiko has a reader too; it knows no patterns, no ``@revoked`` and one key a type only, and it
gives up on a whole file for one bad line. A host's identity is worth these lines.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path


@dataclass(frozen=True)
class HostKeyEntry:
    """One line: ``marker`` is "", "@revoked" or "@cert-authority"; ``blob`` is the key itself."""

    names: str
    kind: str
    blob: bytes
    marker: str = ""


@dataclass(frozen=True)
class KnownKeys:
    """What the files say about one host."""

    keys: tuple[HostKeyEntry, ...] = ()
    revoked: tuple[HostKeyEntry, ...] = ()
    authorities: tuple[HostKeyEntry, ...] = ()

    def has(self, blob: bytes) -> bool:
        return any(entry.blob == blob for entry in self.keys)

    def is_revoked(self, blob: bytes) -> bool:
        return any(entry.blob == blob for entry in self.revoked)


class Entries(tuple[HostKeyEntry, ...]):
    """Entries in their order, and which of them can be about a name."""

    def about(self, name: str) -> Iterator[HostKeyEntry]:
        """Those that name it, and those with patterns and hashes; a few of thousands."""
        for place in sorted({*self._unclear, *self._by_name.get(name, ())}):
            yield self[place]

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, entry in enumerate(self):
            for name in entry.names.lower().split(","):
                found.setdefault(name, []).append(place)
        return found

    @cached_property
    def _unclear(self) -> frozenset[int]:
        return frozenset(
            place
            for place, entry in enumerate(self)
            if "|" in entry.names or "*" in entry.names or "?" in entry.names
        )


def read(paths: Iterable[Path]) -> Entries:
    """The entries of all files; a file that is not there has none. Raises OSError."""
    looks = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            looks.append((path, found.st_ino, found.st_mtime_ns, found.st_size))
    return _read(tuple(looks))


@lru_cache(maxsize=16)
def _read(looks: tuple[tuple[Path, int, int, int], ...]) -> Entries:
    """Once for each state of the files: every host of thousands asks for them."""
    entries: list[HostKeyEntry] = []
    for path, *_ in looks:
        with contextlib.suppress(FileNotFoundError):
            entries += parse(path.read_text(encoding="utf-8", errors="replace"))
    return Entries(entries)


def parse(text: str) -> Entries:
    """Every line that can be read; comments and bad lines are passed over, as ssh(1) does."""
    entries = []
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if len(fields) < 3:
            continue
        try:
            blob = base64.b64decode(fields[2], validate=True)
        except binascii.Error:
            continue
        entries.append(HostKeyEntry(fields[0], fields[1], blob, marker))
    return Entries(entries)


def lookup(entries: Entries, host: str, port: int, *, alias: str = "") -> KnownKeys:
    """What is known about ``host``.

    With ``alias`` (HostKeyAlias) that name alone counts, without a port. Else ``[host]:port``, and
    where that has no key the bare name, as ssh(1) does it.
    """
    plain = (alias or host).lower()
    spelled = plain if alias or port == 22 else f"[{plain}]:{port}"
    known = _named(entries, spelled)
    if not known.keys and spelled != plain:
        bare = _named(entries, plain)
        return KnownKeys(
            bare.keys, known.revoked + bare.revoked, known.authorities + bare.authorities
        )
    return known


def _named(entries: Entries, name: str) -> KnownKeys:
    found: dict[str, list[HostKeyEntry]] = {"": [], "@revoked": [], "@cert-authority": []}
    for entry in entries.about(name):
        if entry.marker in found and _matches(entry.names, name):
            found[entry.marker].append(entry)
    return KnownKeys(*(tuple(found[marker]) for marker in ("", "@revoked", "@cert-authority")))


def _matches(names: str, name: str) -> bool:
    matched = False
    for pattern in names.split(","):
        if pattern.startswith("|1|"):
            matched = matched or _hash_matches(pattern, name)
        elif pattern.startswith("!"):
            if _glob(pattern[1:], name):
                return False
        else:
            matched = matched or _glob(pattern, name)
    return matched


def _glob(pattern: str, name: str) -> bool:
    # In OpenSSH's patterns only * and ? mean something; '[' opens a name with a port.
    if "*" not in pattern and "?" not in pattern:
        return name == pattern.lower()
    return fnmatchcase(name, pattern.lower().replace("[", "[[]"))


def _hash_matches(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in hashed[3:].split("|"))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)


def can_learn(paths: Sequence[Path]) -> bool:
    """Whether new keys can be kept: Vagrant and many an Ansible inventory have /dev/null there."""
    return bool(paths) and paths[0].as_posix() != os.devnull


def line_for(
    host: str, port: int, kind: str, blob: bytes, *, alias: str = "", hashed: bool = False
) -> str:
    """The line that makes ``lookup`` find this key; ``hashed``: HashKnownHosts."""
    plain = (alias or host).lower()
    name = plain if alias or port == 22 else f"[{plain}]:{port}"
    if hashed:
        salt = os.urandom(20)
        digest = hmac.digest(salt, name.encode(), "sha1")
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    return f"{name} {kind} {base64.b64encode(blob).decode()}\n"


def fingerprint(blob: bytes) -> str:
    """As ssh-keygen -l prints it: ``SHA256:…``."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
