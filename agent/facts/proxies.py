"""Facts about the proxies that services are given, by their units or by systemd itself.

The files tell what will be after a restart, in systemd's own order (systemd.exec(5)): a later
``Environment=`` replaces an earlier one, and each ``EnvironmentFile=`` replaces what both said.
"""

from __future__ import annotations

import fnmatch
import glob
import re
import shlex
from typing import NamedTuple

from agent.facts.daemons import Daemon
from agent.node.tree import Tree

_FOLDERS = ("/usr/lib/systemd/system", "/lib/systemd/system", "/usr/local/lib/systemd/system",
            "/run/systemd/system", "/etc/systemd/system")  # fmt: skip
KEYS = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy")


class Proxied(NamedTuple):
    """A service with a proxy in its environment. Go takes the upper-case name first.

    ``without_us`` is the NO_PROXY it would have if our own drop-in were not there.
    """

    unit: str
    https: str = ""
    http: str = ""
    bypass: str = ""
    without_us: str = ""


def find(tree: Tree, daemons: tuple[Daemon, ...], units: list[str]) -> tuple[Proxied, ...]:
    """Those of ``units`` that are told to use a proxy."""
    inherited = {
        one.unit: {key: one.environment[key] for key in KEYS if key in one.environment}
        for one in daemons
        if one.unit
    }
    found = []
    for unit in dict.fromkeys(units):
        theirs = _environment(tree, unit, ours=False)
        said = {**inherited.get(unit, {}), **theirs, **_environment(tree, unit, ours=True)}
        https, http = _first(said, "HTTPS_PROXY"), _first(said, "HTTP_PROXY")
        if https or http:
            bare = {**inherited.get(unit, {}), **theirs}
            if "NO_PROXY" not in theirs and "no_proxy" not in theirs and OURS in _names(tree, unit):
                bare = theirs  # what runs has ours
            found.append(
                Proxied(unit, https, http, _first(said, "NO_PROXY"), _first(bare, "NO_PROXY"))
            )
    return tuple(found)


# Behind the usual names of drop-ins, so that it has the last word.
OURS = "zz-moorage-no-proxy.conf"


def folder(unit: str) -> str:
    """Where an administrator's drop-ins for a unit are."""
    return f"/etc/systemd/system/{unit}.d"


def _first(said: dict[str, str], key: str) -> str:
    return said.get(key) or said.get(key.lower()) or ""


def _names(tree: Tree, unit: str) -> tuple[str, ...]:
    return tree.names(folder(unit))


def _environment(tree: Tree, unit: str, ours: bool) -> dict[str, str]:
    """What a unit's files say of proxies, with our own drop-in or without."""
    plain: dict[str, str] = {}
    files: list[str] = []
    for path in _sources(tree, unit):
        if not ours and path.endswith(f"/{OURS}"):
            continue
        text = (tree.read(path).content or b"").decode("utf-8", "replace")
        for key, value in _settings(text):
            if key == "Environment":
                plain = {**plain, **_assignments(value)} if value else {}
            elif value:
                files.append(value)
            else:
                files = []
    for pattern in files:
        for path in _matching(tree, pattern.lstrip("-")):
            text = (tree.read(path).content or b"").decode("utf-8", "replace")
            for line in text.splitlines():
                if line.strip() and line.strip()[0] not in "#;":
                    plain.update(_assignments(line.strip()))
    return {key: value for key, value in plain.items() if key in KEYS}


def _sources(tree: Tree, unit: str) -> list[str]:
    """The unit's file, then its drop-ins by name; of two with one name, the later folder's."""
    main = [f"{one}/{unit}" for one in reversed(_FOLDERS) if tree.exists(f"{one}/{unit}")]
    drops: dict[str, str] = {}
    for one in _FOLDERS:
        for name in tree.names(f"{one}/{unit}.d"):
            if name.endswith(".conf"):
                drops[name] = f"{one}/{unit}.d/{name}"
    return main[:1] + [drops[name] for name in sorted(drops)]


def _settings(text: str) -> list[tuple[str, str]]:
    """The Environment and EnvironmentFile settings of a unit's text, continued lines joined."""
    joined = re.sub(r"\\\n", " ", text)
    return re.findall(r"^\s*(Environment|EnvironmentFile)\s*=[ \t]*(.*?)[ \t]*$", joined, re.M)


def _assignments(value: str) -> dict[str, str]:
    try:
        words = shlex.split(value)
    except ValueError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _matching(tree: Tree, pattern: str) -> list[str]:
    """The files an EnvironmentFile names; it may be a glob."""
    if not glob.has_magic(pattern):
        return [pattern]
    parent, _, name = pattern.rpartition("/")
    return [f"{parent}/{one}" for one in tree.names(parent) if fnmatch.fnmatchcase(one, name)]
