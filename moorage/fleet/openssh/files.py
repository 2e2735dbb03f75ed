"""The files of one OpenSSH configuration, with those they include, as blocks of lines.

What stands under a ``Host`` or ``Match`` line is one block. An ``Include`` keeps its place in its
block: the included file counts where the block does. Source: ssh_config(5) and readconf.c.
"""

from __future__ import annotations

import glob
import hashlib
import os
import pwd
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from moorage.errors import Refused
from moorage.files import user_home, user_path
from moorage.fleet.openssh import words

SYSTEM = Path("/etc/ssh/ssh_config")
# readconf.c, READCONF_MAX_DEPTH
_DEPTH = 16


@dataclass(frozen=True)
class ConfigLine:
    """One line: its keyword in small letters, the rest as it stands there, and its arguments."""

    place: str
    keyword: str
    rest: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """``head``: the Host or Match line, None for what stands before the first."""

    head: ConfigLine | None
    body: tuple[ConfigLine | ConfigFile, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The hosts it is about, if it is a Host line that has no pattern among them."""
        if self.head is None or self.head.keyword != "host":
            return ()
        literal = not any(set(word) & set("*?!") for word in self.head.words)
        return self.head.words if literal else ()


@dataclass(frozen=True)
class ConfigFile:
    """A file that was read: its blocks in order, and the SHA-256 of what was in it."""

    path: Path
    digest: str
    blocks: tuple[Block, ...]

    def all(self) -> Iterator[ConfigFile]:
        """The file, and those it includes."""
        yield self
        for block in self.blocks:
            for item in block.body:
                if isinstance(item, ConfigFile):
                    yield from item.all()

    def lines(self) -> Iterator[ConfigLine]:
        """Every line, those of included files too, and of blocks that are about no host."""
        for block in self.blocks:
            if block.head is not None:
                yield block.head
            for item in block.body:
                if isinstance(item, ConfigFile):
                    yield from item.lines()
                else:
                    yield item

    @cached_property
    def _places(self) -> tuple[tuple[int, ...], dict[str, list[int]]]:
        by_name: dict[str, list[int]] = {}
        general = []
        for place, block in enumerate(self.blocks):
            for name in block.names:
                by_name.setdefault(name, []).append(place)
            if not block.names:
                general.append(place)
        return tuple(general), by_name

    def about(self, host: str) -> Iterator[Block]:
        """The blocks that may be about ``host``, in order: a few of thousands."""
        general, by_name = self._places
        for place in sorted({*general, *by_name.get(host, ())}):
            yield self.blocks[place]


def home() -> Path:
    """The home that OpenSSH goes by: of the password database, whatever ``$HOME`` says."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return user_home()


def me() -> str:
    """The user that OpenSSH logs in as if nobody says another. Raises Refused."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise Refused(
            "bad-ssh-config",
            f"this machine has no user with the number {os.getuid()}",
            cause="so there is no name to log in with",
            cure="name the user: --hosts=USER@NODE, or nodes.user in invoke.yaml",
        ) from None


def tilde(name: str) -> Path:
    """``~/x`` and ``~user/x`` -> the path."""
    return home() / name[2:] if name.startswith("~/") else user_path(name)


def read(config: Path | None) -> tuple[ConfigFile, ...]:
    """The user's file and the system's, or ``config`` alone in their place, as ``ssh -F`` does it.

    Raises Refused (``bad-ssh-config``) with file and line.
    """
    if config is not None:
        require_readable(config)
        return (_read(config, _Kind(system=False), 0),)
    usual = (home() / ".ssh/config", _Kind(system=False)), (SYSTEM, _Kind(system=True))
    return tuple(_read(path, kind, 0) for path, kind in usual if path.exists())


def require_readable(path: Path) -> None:
    """Raises Refused for a file that was named and cannot be read."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as problem:
        raise unreadable(str(path), problem.strerror or str(problem)) from None


@dataclass(frozen=True)
class _Kind:
    """``system``: relative names in it are in /etc/ssh, and nobody's home is meant by ``~``."""

    system: bool

    @property
    def folder(self) -> Path:
        return SYSTEM.parent if self.system else home() / ".ssh"


def parse(content: bytes, path: Path, *, system: bool = False, depth: int = 0) -> ConfigFile:
    """``content`` as the file at ``path``; what it includes is read. Raises as ``read``."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as problem:
        number = content[: problem.start].count(b"\n") + 1
        raise unreadable(f"{path}, line {number}", "the line is not UTF-8") from None
    draft = _Draft()
    for number, raw in enumerate(text.split("\n"), 1):
        line = _line(raw, f"{path}, line {number}")
        if line is None:
            continue
        if line.keyword in ("host", "match"):
            draft.begin(line)
        elif line.keyword == "include":
            draft.body += _included(line, _Kind(system), depth)
        else:
            draft.body.append(line)
    draft.end()
    return ConfigFile(path, hashlib.sha256(content).hexdigest(), tuple(draft.blocks))


@dataclass
class _Draft:
    blocks: list[Block] = field(default_factory=list)
    head: ConfigLine | None = None
    body: list[ConfigLine | ConfigFile] = field(default_factory=list)

    def begin(self, head: ConfigLine) -> None:
        self.end()
        self.head = head

    def end(self) -> None:
        self.blocks.append(Block(self.head, tuple(self.body)))
        self.body = []


def _read(path: Path, kind: _Kind, depth: int) -> ConfigFile:
    if depth > _DEPTH:
        raise unreadable(str(path), "files include each other without end")
    try:
        # OpenSSH opens whatever is there; a folder has no lines.
        content = b"" if path.is_dir() else path.read_bytes()
        if depth or path == home() / ".ssh/config":
            _require_own(path, path.stat())
    except OSError as problem:
        raise unreadable(str(path), problem.strerror or str(problem)) from None
    return parse(content, path, system=kind.system, depth=depth)


def _require_own(path: Path, found: os.stat_result) -> None:
    """Refuses what others may write, as OpenSSH does: who writes it chooses where we go."""
    if found.st_uid not in (0, os.getuid()) or found.st_mode & 0o022:
        raise unreadable(
            str(path),
            "another user may write it, and OpenSSH does not read it either",
            cure=f"chmod go-w {shlex.quote(str(path))}, as its owner; it must be yours or root's",
        )


def _line(raw: str, place: str) -> ConfigLine | None:
    text = raw.strip(" \t\r\n\f")
    if not text or text.startswith("#"):
        return None
    try:
        keyword, rest = words.keyword(text)
        if not rest:
            raise words.Malformed(f"nothing follows {keyword}")
        # A command's quotes are the shell's affair.
        raw_rest = keyword in ("proxycommand", "localcommand", "remotecommand", "match")
        return ConfigLine(place, keyword, rest, () if raw_rest else words.arguments(rest))
    except words.Malformed as problem:
        raise unreadable(place, str(problem)) from None


def line_of(option: str, place: str) -> ConfigLine:
    """``KEYWORD=VALUE``, as after ``ssh -o``, as a line. Raises Refused."""
    line = _line(option, place)
    if line is None:
        raise unreadable(place, "the option is empty")
    return line


def _included(line: ConfigLine, kind: _Kind, depth: int) -> list[ConfigLine | ConfigFile]:
    found: list[ConfigLine | ConfigFile] = []
    for pattern in line.words:
        if re.search(r"[$%]", pattern):
            raise unreadable(line.place, f"Include {pattern}: tokens and variables are not read")
        if pattern.startswith("~") and kind.system:
            raise unreadable(line.place, f"Include {pattern}: whose home that is, is not clear")
        for path in sorted(glob.glob(str(kind.folder / tilde(pattern)))):  # noqa: PTH207
            found.append(_read(Path(path), kind, depth + 1))
    return found


def unreadable(place: str, cause: str, cure: str = "") -> Refused:
    """The refusal of a configuration. ``place``: its file, and the line if one is to blame."""
    path = place.partition(", line ")[0]
    return Refused(
        "bad-ssh-config",
        f"{place}: the OpenSSH configuration cannot be used",
        cause=cause,
        cure=cure
        or "correct the file (ssh -G HOST shows how OpenSSH reads it), or name another in "
        "nodes.ssh_config",
        path=path,
    )
