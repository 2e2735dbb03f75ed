"""Facts about Docker Engines: the system's, a snap's, and those that users run without root.

Where each looks for a registry's CA is the same for all ways of installing it but two:
a rootless one reads its user's ``~/.config/docker/certs.d`` (``CertsDir`` in moby's
``daemon/pkg/registry/config.go``), a snap's ``/var/snap/docker/common/etc/certs.d`` (its README).
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import NamedTuple

from agent.facts.daemons import Daemon, option, options, running
from agent.facts.runtimes import service
from agent.node.host import Host
from agent.node.tree import Tree
from agent.wire.faults import AgentError

CERTS = "/etc/docker/certs.d"
CONFIG = "/etc/docker/daemon.json"
SOCKET = "/run/docker.sock"
SNAP = "/var/snap/docker"
PROGRAM = "dockerd"
# What is reached there is asked without verifying, whatever daemon.json says; newer ones add ::1
# (``loadInsecureRegistries`` in moby's daemon/pkg/registry/config.go).
LOOPBACK = ("127.0.0.0/8", "::1/128")


class Docker(NamedTuple):
    """A Docker Engine; ``version`` is empty if only its folder shows that it is there.

    ``socket`` is a path, or ``tcp://host:port``. ``home`` is the home folder of the user that runs
    a rootless one, else empty. ``flags`` are the options it was started with.
    ``containerd_store``: it pulls by containerd's code, which reads hosts.toml files below
    ``certs``, and gives the mirrors of daemon.json no CA. ``unverified`` are the registries, and
    networks of registries, whose certificates it verifies not at all.
    """

    version: str = ""
    certs: str = CERTS
    config: str = CONFIG
    socket: str = SOCKET
    unit: str = ""
    running: bool = False
    home: str = ""
    flags: tuple[str, ...] = ()
    containerd_store: bool = False
    unverified: tuple[str, ...] = LOOPBACK


def find(host: Host, tree: Tree, daemons: tuple[Daemon, ...]) -> tuple[Docker, ...]:
    """The engines of the node, the system's own first."""
    found = [_running(host, tree, one) for one in daemons if one.program == PROGRAM]
    if not any(not one.home for one in found):
        idle = _idle(host, tree)
        found = ([idle] if idle is not None else []) + found
    seen = {one.home for one in found}
    found += [one for one in _rootless_units(tree) if one.home not in seen]
    found = [_asked(host, tree, one) for one in found]
    unique = {one.certs: one for one in reversed(found)}
    return tuple(sorted(unique.values(), key=lambda one: one.home))


def rootless_configs(host: Host) -> tuple[str, ...]:
    """The folders below which rootless engines look for CAs, by the host's own records of homes.

    What their processes say of themselves is their users' to make up, so that is not asked.
    """
    import pwd

    homes = {one.home for one in _rootless_units(Tree(host.root))}
    for daemon in running(host, {PROGRAM}):
        if daemon.uid != 0:
            with contextlib.suppress(KeyError):
                homes.add(pwd.getpwuid(daemon.uid).pw_dir)
    return tuple(f"{home}/.config" for home in sorted(homes))


def _running(host: Host, tree: Tree, daemon: Daemon) -> Docker:
    version = _version(host, daemon.argv[0])
    flags = daemon.argv[1:]
    if daemon.uid != 0 or "ROOTLESSKIT_STATE_DIR" in daemon.environment:
        home = daemon.environment.get("HOME", "")
        config = daemon.environment.get("XDG_CONFIG_HOME") or f"{home}/.config"
        folder = daemon.environment.get("XDG_RUNTIME_DIR") or f"/run/user/{daemon.uid}"
        said = option(flags, "--config-file") or f"{config}/docker/daemon.json"
        return Docker(
            version,
            certs=f"{config}/docker/certs.d",
            config=said,
            socket=_socket(host, tree, flags, said) or f"{folder}/docker.sock",
            running=True,
            home=home,
            flags=flags,
        )
    snap = "/snap/" in daemon.argv[0] or daemon.unit.startswith("snap.docker.")
    usual = f"{SNAP}/current/config/daemon.json" if snap else CONFIG
    said = option(flags, "--config-file") or usual
    return Docker(
        version,
        certs=f"{SNAP}/common/etc/certs.d" if snap else CERTS,
        config=said,
        socket=_socket(host, tree, flags, said) or SOCKET,
        unit=_unit(host, daemon),
        running=True,
        flags=flags,
    )


def _unit(host: Host, daemon: Daemon) -> str:
    """A snap's is called ``snap.docker.dockerd``; what starts any other, its process tells."""
    found = service(host, daemon, PROGRAM, "docker")
    return found.name if found is not None else ""


def _idle(host: Host, tree: Tree) -> Docker | None:
    """An engine that is installed and not at work now; its programs, or its folders, tell."""
    programs = [host.which(program) for program in ("dockerd", "docker")]
    binary = next((one for one in programs if one and not one.startswith("/snap/")), None)
    if binary is None and tree.exists(f"{SNAP}/common"):
        return Docker(
            certs=f"{SNAP}/common/etc/certs.d",
            config=f"{SNAP}/current/config/daemon.json",
            unit="snap.docker.dockerd.service",
        )
    if binary is None and not tree.exists(SOCKET) and not tree.exists("/etc/docker"):
        return None
    unit = host.unit("docker.service")
    name = unit.name if unit is not None else ""
    flags = unit.argv[1:] if unit is not None else ()
    config = option(flags, "--config-file") or CONFIG
    version = "" if binary is None else _version(host, binary)
    return Docker(version, config=config, unit=name, flags=flags)


def _rootless_units(tree: Tree) -> list[Docker]:
    """Rootless engines that do not run now: their users' own units tell."""
    homes = ["/root", *(f"/home/{name}" for name in tree.names("/home"))]
    return [
        Docker(
            certs=f"{home}/.config/docker/certs.d",
            config=f"{home}/.config/docker/daemon.json",
            socket="",
            home=home,
        )
        for home in homes
        if tree.exists(f"{home}/.config/systemd/user/docker.service")
    ]


def _asked(host: Host, tree: Tree, engine: Docker) -> Docker:
    """With what the engine itself tells, else with what its file does."""
    info: dict[str, object] = {}
    if host.real and engine.running:
        from agent.clients.docker import docker_info

        info = docker_info(engine.socket)
    told = _in_file(tree, engine)
    if info:
        store = "io.containerd.snapshotter.v1" in str(info.get("DriverStatus") or [])
        unverified, mirrors = _registries(info.get("RegistryConfig"))
    else:
        features, mirrors = told.get("features"), bool(told.get("registry-mirrors"))
        store = isinstance(features, dict) and features.get("containerd-snapshotter") is True
        listed = told.get("insecure-registries")
        listed = listed if isinstance(listed, list) else []
        unverified = (*LOOPBACK, *map(str, listed))
    # With that store they count only where something is configured (``mergeLegacyConfig`` in
    # moby's daemon/hosts.go).
    bare = store and not mirrors and set(unverified) <= set(LOOPBACK)
    return engine._replace(containerd_store=store, unverified=() if bare else unverified)


def _in_file(tree: Tree, engine: Docker) -> dict[str, object]:
    try:
        told = json.loads(tree.read(engine.config).content or b"{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _registries(told: object) -> tuple[tuple[str, ...], bool]:
    """What ``/info`` tells in ``RegistryConfig``: where nothing is verified; whether it mirrors."""
    if not isinstance(told, dict):
        return LOOPBACK, False
    each = (told.get("IndexConfigs") or {}).values()
    names = [str(one.get("Name")) for one in each if one.get("Secure") is False]
    return (*map(str, told.get("InsecureRegistryCIDRs") or ()), *names), bool(told.get("Mirrors"))


def _socket(host: Host, tree: Tree, flags: tuple[str, ...], config: str) -> str:
    """Where the engine listens: a socket's path, or ``tcp://`` without TLS; empty: not told.

    dockerd takes ``hosts`` from its command line or from its file, never from both. Of ``fd://``
    systemd knows the place (docker.socket). Of several, a socket is asked first.
    """
    addresses = [*options(flags, "-H", "--host")]
    try:
        said = json.loads((tree.read(config).content or b"{}").decode("utf-8-sig"))
        listed = said.get("hosts") if isinstance(said, dict) else None
    except ValueError:
        said, listed = {}, None
    addresses += [one for one in listed or () if isinstance(one, str)]
    for one in addresses:
        if one.startswith("unix:///"):
            return one[len("unix://") :]
        if one.startswith("fd:"):
            return _activated(host)
    tls = any(flag.startswith("--tls") for flag in flags) or (
        isinstance(said, dict) and any(key.startswith("tls") for key in said)
    )
    return next((one for one in addresses if one.startswith("tcp://") and not tls), "")


def _activated(host: Host) -> str:
    """The socket that systemd holds for the engine (systemd.socket(5), ListenStream)."""
    if not host.systemd:
        return ""
    shown = host.run(["systemctl", "show", "docker.socket", "-p", "Listen"])
    found = re.search(r"^Listen=(/\S+) \(Stream\)$", shown.out, re.MULTILINE)
    return found[1] if found is not None else ""


def _version(host: Host, binary: str) -> str:
    if host.real and not binary.startswith("/"):
        binary = host.which(binary) or binary
    try:
        shown = host.answer([host.outside(binary), "--version"])
    except AgentError:  # a version is good to know and not needed
        return ""
    version = re.search(r"\d+\.\d+\.\d+", shown.out)
    return version[0] if version else ""
