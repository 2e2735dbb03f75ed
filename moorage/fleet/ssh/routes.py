"""What OpenSSH says of a host -> the Route to it, jump hosts included."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.files import user_path
from moorage.fleet.inventory import Target, given_twice, targets
from moorage.fleet.openssh import answers, arguments, files, tokens
from moorage.fleet.openssh.program import Query
from moorage.fleet.openssh.words import Malformed

if TYPE_CHECKING:
    from moorage.settings import NodesSettings

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_USER_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_SYSTEM_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
# Each question is a process of a few milliseconds, and most of those it works.
_AT_ONCE = 8


@dataclass(frozen=True)
class Route:
    """Everything that is needed to reach one node.

    ``hostname`` is what is connected to; ``known_hosts`` the files its key is looked for in, the
    first of which learns new keys; ``alias`` the name it is looked for under, if another.
    ``agent``: "" for ``SSH_AUTH_SOCK``, "none", or a socket's path. ``jumps`` come first to last.
    ``proxies``: the machines that a ProxyCommand by ``ssh -W`` goes through, address and port.
    ``family``: "any", "inet" or "inet6"; ``bind``: this machine's address to go out from, if said.
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
    certificates: tuple[Path, ...] = ()
    agent: str = ""
    known_hosts: tuple[Path, ...] = ()
    hash_known_hosts: bool = False
    alias: str = ""
    jumps: tuple[Route, ...] = ()
    proxy_command: str = ""
    proxies: tuple[tuple[str, int], ...] = ()
    connect_timeout: int = 10
    family: str = "any"
    bind: str = ""
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
    targets: Sequence[Target],
    settings: NodesSettings,
    lab: LabHosts | None = None,
    kept: Path | None = None,
) -> tuple[Route, ...]:
    """One Route a Target, in order.

    Settings come first, then the OpenSSH configuration: ``nodes.ssh_config`` in the place of
    ``~/.ssh/config`` and the system's file, as ``ssh -F`` does it. For ``lab`` names its own file
    decides alone, for a host of an inventory that is one, that. ``kept``: a folder for what OpenSSH
    answered, None: nothing is kept. Raises Refused for a file that cannot be used.
    """
    configs: dict[tuple[str, bool], _Config] = {}

    usual = Path(settings.ssh_config) if settings.ssh_config else None
    known = _read_anyway(targets, usual)

    def config_of(target: Target) -> _Config:
        in_lab = lab is not None and target.host in lab.names and not target.ssh_config
        own = user_path(target.ssh_config) if target.ssh_config else usual
        only = lab.config if lab is not None and in_lab else usual if own in known else own
        key = str(only or ""), in_lab
        if key not in configs:
            configs[key] = _Config(settings, only, in_lab, kept)
        return configs[key]

    mine = [config_of(target) for target in targets]
    with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(mine)))) as pool:
        found = tuple(pool.map(lambda one: one[0].route(one[1]), zip(mine, targets, strict=True)))
    for config in configs.values():
        config.keep()
    return found


def _read_anyway(targets: Sequence[Target], usual: Path | None) -> frozenset[Path]:
    """The files of the usual configuration, if some host comes from a file that may be one.

    What such a host gets from the others of them, defaults for all hosts, holds for it too.
    """
    if not any(target.ssh_config for target in targets):
        return frozenset()
    try:
        found = files.read(usual)
    except Refused:
        return frozenset()  # whoever reads it next says why
    return frozenset(one.path for file in found for one in file.all())


def remembered(target: Target, address: str, port: int) -> Route:
    """The way to a resident agent, at which it was met last. No configuration is read for it: that
    takes longer than the agent's answer, and where none comes it still can be."""
    return Route(target, address, port, target.user, remembered=True)


def require_each_once(routes: Sequence[Route]) -> None:
    """Raises Refused where two of them lead to one node."""
    seen: dict[object, Route] = {}
    for route in routes:
        key = place(route)
        if key in seen:
            raise given_twice(seen[key].name, route.name)
        seen[key] = route


def place(route: Route) -> object:
    """What is the same for two routes to one machine.

    Behind different jump hosts, or under different key aliases, one address is two machines.
    """
    return (route.hostname.lower(), route.port, route.alias, route.jumps, route.proxy_command)


def passed(route: Route) -> tuple[tuple[str, int], ...]:
    """The machine that the route leads to, after those it leads through."""
    through = [one for jump in route.jumps for one in passed(jump)]
    return (*through, *route.proxies, (route.hostname.lower(), route.port))


class _Config:
    """One configuration, and what of the settings holds beside it."""

    def __init__(
        self, settings: NodesSettings, only: Path | None, in_lab: bool, kept: Path | None
    ) -> None:
        self._user = "" if in_lab else settings.user
        self._known_hosts = "" if in_lab else settings.known_hosts
        self._connect_timeout = settings.connect_timeout
        self._answers = answers.of(only, kept)
        self._source = str(answers.source(only))
        self._me = files.me()
        self._usual_identities = _usual_identities()

    def keep(self) -> None:
        self._answers.keep()

    def route(self, target: Target, within: tuple[str, ...] = ()) -> Route:
        """Raises Refused, with the host, for what cannot be used."""
        user = target.user or ("" if within else self._user)
        # What was typed is first, as on ssh's command line.
        query = Query(target.host, user, target.port, target.ssh_args)
        options = self._answers.options(query)
        try:
            return self._made(target, options, within)
        except Malformed as problem:
            raise self._unusable(target, str(problem)) from None

    def _made(
        self, target: Target, options: Mapping[str, tuple[str, ...]], within: tuple[str, ...]
    ) -> Route:
        user = _one(options, "user")
        alias = _one(options, "hostkeyalias")
        host = _one(options, "hostname") or target.host
        port = int(_one(options, "port") or target.port or 22)
        means = tokens.of(host, target.host, port, user or self._me, self._me, alias)
        for keyword in ("bindinterface", "proxyusefdpass"):
            if _one(options, keyword).lower() not in ("", "no", "false"):
                raise Malformed(f"{keyword} is set for {target.host}, and cannot be honoured here")
        given = options.get("identityfile")
        jump = tokens.expanded(_one(options, "proxyjump"), means)
        command = tokens.expanded(_one(options, "proxycommand"), means)
        timeout = _one(options, "connecttimeout")
        return Route(
            target=target,
            hostname=host,
            port=port,
            user=user or self._me,
            user_is_guess=not user,
            identities=self._usual_identities if given is None else _paths(given, means),
            identities_given=given is not None,
            identities_only=_yes(options, "identitiesonly"),
            certificates=_paths(options.get("certificatefile", ()), means),
            agent=_agent(_one(options, "identityagent"), means),
            known_hosts=self._hosts_files(options, means),
            hash_known_hosts=_yes(options, "hashknownhosts"),
            alias=alias,
            jumps=() if jump.lower() in ("", "none") else self._jumps(target, jump, within),
            proxy_command="" if command.lower() == "none" else command,
            proxies=self._proxies(target, command, within),
            connect_timeout=int(timeout) if timeout.isdecimal() else self._connect_timeout,
            family=_one(options, "addressfamily") or "any",
            bind=_one(options, "bindaddress"),
            source=self._source,
        )

    def _hosts_files(
        self, options: Mapping[str, tuple[str, ...]], means: Mapping[str, str]
    ) -> tuple[Path, ...]:
        if self._known_hosts:
            return (Path(self._known_hosts),)
        users = options.get("userknownhostsfile", _USER_HOSTS)
        systems = options.get("globalknownhostsfile", _SYSTEM_HOSTS)
        return _paths((*users, *systems), means)

    def _jumps(self, target: Target, jump: str, within: tuple[str, ...]) -> tuple[Route, ...]:
        if target.host in within:
            raise self._unusable(
                target, f"ProxyJump goes round in circles: {' -> '.join((*within, target.host))}"
            )
        chain: list[Route] = []
        for word in jump.split(","):
            hop = _hop(word.strip())
            if hop.host == target.host:
                # `Host *` with ProxyJump holds for the jump host too, which is reached without.
                return ()
            route = self.route(hop, (*within, target.host))
            chain += [*route.jumps, route] if not chain else [route]
        return tuple(chain)

    def _proxies(
        self, target: Target, command: str, within: tuple[str, ...]
    ) -> tuple[tuple[str, int], ...]:
        """What of the way through ``ssh -W`` can be told; a command of any other kind has none."""
        try:
            program, *words = shlex.split(command.removeprefix("exec "))
            found = arguments.read(words)
            if Path(program).name != "ssh" or not found.forwards or target.host in within:
                return ()
            hop = replace(_hop(found.rest[0]), ssh_args=found.options)
            route = self.route(hop, (*within, target.host))
        except (ValueError, IndexError, Refused):
            return ()
        return passed(route)

    def _unusable(self, target: Target, cause: str) -> Refused:
        return files.unreadable(
            self._source, cause, cure=f"ssh -G {target.host} shows where it comes from; correct it"
        )


def _hop(word: str) -> Target:
    """``user@host:port``, also as ssh:// has it. ssh -G puts IPv4 addresses into brackets."""
    plain = word.removeprefix("ssh://")
    user, at, rest = plain.rpartition("@")
    address, bracket, tail = rest.removeprefix("[").partition("]")
    if rest.startswith("[") and bracket and ":" not in address:
        plain = f"{user}{at}{address}{tail}"
    return targets.parse(plain)


def _one(options: Mapping[str, tuple[str, ...]], key: str) -> str:
    return options.get(key, ("",))[0]


def _yes(options: Mapping[str, tuple[str, ...]], key: str) -> bool:
    return _one(options, key).lower() in ("yes", "true")


def _paths(names: Sequence[str], means: Mapping[str, str]) -> tuple[Path, ...]:
    return tuple(tokens.path(name, means) for name in names if name.lower() != "none")


def _usual_identities() -> tuple[Path, ...]:
    folder = files.home() / ".ssh"
    return tuple(folder / name for name in _DEFAULT_KEYS if (folder / name).is_file())


def _agent(given: str, means: Mapping[str, str]) -> str:
    if given in ("", "SSH_AUTH_SOCK"):
        return ""
    if given.lower() == "none":
        return "none"
    if given.startswith("$"):
        given = os.environ.get(given[1:].strip("{}"), "none")
    return given if given == "none" else str(tokens.path(given, means))
