"""The user's OpenSSH configuration -> Routes: where a Target is, as whom, through what, with what.

paramiko parses the file and matches hosts; what it leaves out (Include, known-hosts files, aliases
of host keys, agents) is read here, so that a node that ``ssh node1`` reaches is reached by us too.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.fleet.inventory import Target, given_twice
from moorage.fleet.openssh_blocks import Blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from moorage.settings import NodesSettings

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_SYSTEM_KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
# readconf.c, READCONF_MAX_DEPTH
_INCLUDE_DEPTH = 16


@dataclass(frozen=True)
class Route:
    """Everything that is needed to reach one node.

    ``hostname`` is what is connected to; ``known_hosts`` the files its key is looked for in, the
    first of which learns new keys; ``alias`` the name it is looked for under, if another.
    ``agent``: "" for ``SSH_AUTH_SOCK``, "none", or a socket's path. ``jumps`` come first to last.
    ``remembered``: only where the node's resident agent was last; see :func:`remembered`.
    """

    target: Target
    hostname: str
    port: int
    user: str
    user_is_guess: bool = False
    identities: tuple[Path, ...] = ()
    identities_given: bool = False
    identities_only: bool = False
    agent: str = ""
    known_hosts: tuple[Path, ...] = ()
    hash_known_hosts: bool = False
    alias: str = ""
    jumps: tuple[Route, ...] = ()
    proxy_command: str = ""
    connect_timeout: int = 10
    source: str = field(default="", compare=False)
    remembered: bool = False

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def direct(self) -> bool:
        """Whether our own socket ends at the node, so that its local address is one it can use."""
        return not self.jumps and not self.proxy_command


@dataclass(frozen=True)
class LabHosts:
    """The lab's nodes by name, and the OpenSSH configuration that is theirs alone."""

    names: frozenset[str]
    config: Path


def routes(
    targets: Sequence[Target], settings: NodesSettings, lab: LabHosts | None = None
) -> tuple[Route, ...]:
    """One Route a Target, in order.

    Settings come first, then the OpenSSH configuration: ``nodes.ssh_config`` in the place of
    ``~/.ssh/config`` and the system's file, as ``ssh -F`` does it. For ``lab`` names its own file
    decides alone. Raises Refused for a file that cannot be read.
    """
    from moorage.settings import NodesSettings

    configs: dict[bool, _Config] = {}
    found: list[Route] = []
    for target in targets:
        in_lab = lab is not None and target.host in lab.names
        if in_lab not in configs:
            configs[in_lab] = (
                _Config(NodesSettings(connect_timeout=settings.connect_timeout), lab.config)
                if lab is not None and in_lab
                else _Config(settings, None)
            )
        found.append(configs[in_lab].route(target))
    return tuple(found)


def remembered(target: Target, address: str, port: int) -> Route:
    """The way to a resident agent, at which it was met last. No configuration is read for it: that
    takes longer than the agent's answer, and where none comes it still can be."""
    return Route(target, address, port, target.user, remembered=True)


def require_each_once(routes: Sequence[Route]) -> None:
    """Raises Refused where two of them lead to one node."""
    seen: dict[object, Route] = {}
    for route in routes:
        # Behind different jump hosts, or under different key aliases, one address is two machines.
        key = (route.hostname.lower(), route.port, route.alias, route.jumps, route.proxy_command)
        if key in seen:
            raise given_twice(seen[key].name, route.name)
        seen[key] = route


class _Config:
    def __init__(self, settings: NodesSettings, only: Path | None) -> None:
        self._settings = settings
        self._source, self._blocks = _load(settings, only)
        # Split and looked for once, not once for each of thousands of hosts.
        self._paths = cache(_paths)
        self._usual_identities = _usual_identities()

    def route(self, target: Target, within: tuple[str, ...] = ()) -> Route:
        options = self._options(target)
        settings = self._settings
        identities = _identities(options)
        default_user = settings.user if not within else ""
        user = target.user or default_user or options.get("user", "")
        jump = options.get("proxyjump", "none")
        return Route(
            target=target,
            hostname=options.get("hostname", target.host),
            port=target.port or _number(options, "port", 22),
            user=user or getpass.getuser(),
            user_is_guess=not user,
            identities=self._usual_identities if identities is None else identities,
            identities_given="identityfile" in options,
            identities_only=_yes(options, "identitiesonly"),
            agent=_agent(options),
            known_hosts=self._known_hosts(options),
            hash_known_hosts=_yes(options, "hashknownhosts"),
            alias=options.get("hostkeyalias", ""),
            jumps=() if jump.lower() == "none" else self._jumps(target, jump, within),
            proxy_command=options.get("proxycommand") or "",
            connect_timeout=_number(options, "connecttimeout", settings.connect_timeout),
            source=self._source,
        )

    def _options(self, target: Target) -> Mapping[str, str]:
        try:
            options: dict[str, str] = dict(self._blocks.lookup(target.host))
        except Exception as problem:  # Match exec, canonicalization: whatever it runs into
            raise _unreadable(self._source, str(problem)) from None
        return options

    def _known_hosts(self, options: Mapping[str, str]) -> tuple[Path, ...]:
        ours = self._settings.known_hosts
        if ours:
            return (Path(ours).expanduser(),)
        home = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
        users = self._paths(options.get("userknownhostsfile", home))
        systems = options.get("globalknownhostsfile")
        return users + (_SYSTEM_KNOWN_HOSTS if systems is None else self._paths(systems))

    def _jumps(self, target: Target, jump: str, within: tuple[str, ...]) -> tuple[Route, ...]:
        from moorage.fleet.inventory import parse_hosts

        if target.host in within:
            raise _unreadable(
                self._source, f"ProxyJump goes round in circles: {' -> '.join(within)}"
            )
        chain: list[Route] = []
        for hop in parse_hosts(jump.removeprefix("ssh://")):
            if hop.host == target.host:
                # `Host *` with ProxyJump holds for the jump host too; ssh(1) skips it there.
                return ()
            route = self.route(hop, (*within, target.host))
            chain += [*route.jumps, route] if not chain else [route]
        return tuple(chain)


def _load(settings: NodesSettings, only: Path | None) -> tuple[str, Blocks]:
    if only is not None:
        paths, needed = [only], True
    elif settings.ssh_config:
        paths, needed = [Path(settings.ssh_config).expanduser()], True
    else:
        paths, needed = [Path("~/.ssh/config").expanduser(), SYSTEM_CONFIG], False
    text = ""
    for path in paths:
        if needed or path.exists():
            # A new file begins outside of the last file's Host block.
            text += "Host *\n" + expand_includes(_read(path), path, _read)
    source = str(paths[0])
    try:
        return source, Blocks(text)
    except Exception as problem:  # ConfigParseError, and ValueError from the depths of shlex
        raise _unreadable(source, str(problem)) from None


def expand_includes(text: str, path: Path, read: Callable[[Path], str], depth: int = 0) -> str:
    """``Include`` lines replaced by what they name, globs and nesting too (ssh_config(5)).

    The Host or Match line that an Include stood under is repeated after it. ``path`` is the file
    that ``text`` came from: relative names are in ~/.ssh for a user's file, in /etc/ssh for the
    system's. Raises Refused for files that include each other without end.
    """
    if depth > _INCLUDE_DEPTH:
        raise _unreadable(str(path), "files include each other without end")
    system = path.is_relative_to(SYSTEM_CONFIG.parent)
    folder = SYSTEM_CONFIG.parent if system else Path("~/.ssh").expanduser()
    lines: list[str] = []
    block = "Host *"
    for line in text.splitlines():
        word = re.match(r"\s*(\w+)(?:\s*=\s*|\s+)(.+)", line)
        keyword = word[1].lower() if word else ""
        if keyword in ("host", "match"):
            block = line
        if keyword != "include" or word is None:
            lines.append(line)
            continue
        for pattern in shlex.split(word[2], comments=True):
            for included in _glob(folder, pattern):
                lines.append(expand_includes(read(included), included, read, depth + 1))
                lines.append(block)
    return "\n".join(lines) + "\n"


def _glob(folder: Path, pattern: str) -> list[Path]:
    import glob

    place = folder / Path(pattern).expanduser()
    return [Path(name) for name in sorted(glob.glob(str(place))) if Path(name).is_file()]  # noqa: PTH207


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise _unreadable(str(path), str(problem)) from None


def _identities(options: Mapping[str, object]) -> tuple[Path, ...] | None:
    """What the configuration names; None where it names nothing."""
    given = options.get("identityfile")
    if isinstance(given, list):
        return tuple(Path(name).expanduser() for name in given if name.lower() != "none")
    return None


def _usual_identities() -> tuple[Path, ...]:
    folder = Path("~/.ssh").expanduser()
    return tuple(folder / name for name in _DEFAULT_KEYS if (folder / name).is_file())


def _agent(options: Mapping[str, str]) -> str:
    given = options.get("identityagent", "SSH_AUTH_SOCK")
    if given == "SSH_AUTH_SOCK":
        return ""
    if given.lower() == "none":
        return "none"
    name = os.environ.get(given[1:].strip("{}"), "none") if given.startswith("$") else given
    return str(Path(name).expanduser()) if name != "none" else name


def _paths(text: str) -> tuple[Path, ...]:
    if text.lower() == "none":
        return ()
    return tuple(Path(name.replace("%d", "~")).expanduser() for name in shlex.split(text))


def _yes(options: Mapping[str, str], key: str) -> bool:
    return options.get(key, "no").lower() in ("yes", "true")


def _number(options: Mapping[str, str], key: str, default: int) -> int:
    text = options.get(key, "")
    return int(text) if text.isdecimal() and 1 <= int(text) <= 65535 else default


def _unreadable(source: str, cause: str) -> Refused:
    return Refused(
        "bad-ssh-config",
        f"{source} cannot be used",
        cause=cause,
        cure="correct the file (ssh -G HOST shows how OpenSSH reads it), or name another in "
        "nodes.ssh_config",
        path=source,
    )
