"""What k3s and RKE2 are told: config.yaml, its drop-ins and the command line. Pure.

Files come in the order of their names, the last one's word counts, and the command line's counts
more: pkg/configfilearg/parser.go of k3s, https://docs.k3s.io/installation/configuration.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.edit import yaml_block
from agent.edit.change import readable
from agent.facts import Runtime
from agent.facts.daemons import option
from agent.node.tree import Tree
from agent.wire.faults import RefusedError

_KEYS = ("docker", "container-runtime-endpoint", "private-registry", "data-dir", "disable-agent")
_TRUE = ("true", "yes", "on", "y", "1", "t")


class PullConfig(NamedTuple):
    """What decides who pulls, and by what.

    ``endpoint`` is the socket of a runtime that is not its own, "" for its own; with ``docker`` it
    is Docker's. ``agent`` is false of a server that runs no pods.
    """

    docker: bool
    endpoint: str
    registries: str
    data: str
    agent: bool = True

    @property
    def own(self) -> bool:
        """Whether its own containerd pulls."""
        return self.agent and not self.docker and not self.endpoint


def read(tree: Tree, runtime: Runtime) -> PullConfig:
    """Raises RefusedError for a file that is not understood where it counts."""
    folder = f"/etc/rancher/{runtime.name}"
    told = _from_files(tree, _config(runtime, f"{folder}/config.yaml"))
    data = next((value for key, value in runtime.environment.items() if "DATA_DIR" in key), "")
    told = {"data-dir": data, **told, **_from_options(runtime.argv)}
    registries = told.get("private-registry", "")
    endpoint = told.get("container-runtime-endpoint", "")
    return PullConfig(
        docker=told.get("docker", "").lower() in _TRUE,
        endpoint=endpoint[len("unix://") :] if endpoint.startswith("unix://") else endpoint,
        registries=registries if registries.startswith("/") else f"{folder}/registries.yaml",
        data=(told["data-dir"] or f"/var/lib/rancher/{runtime.name}").rstrip("/"),
        agent=told.get("disable-agent", "").lower() not in _TRUE,
    )


def _config(runtime: Runtime, usual: str) -> str:
    """The variable goes before the option."""
    environment = (value for key, value in runtime.environment.items() if "CONFIG_FILE" in key)
    return next(environment, "") or option(runtime.argv, "--config", "-c") or usual


def _from_files(tree: Tree, path: str) -> dict[str, str]:
    if re.match(r"https?://", path):
        raise _refused(path, "it is not on this node")
    names = [name for name in tree.names(f"{path}.d") if name.lower().endswith((".yaml", ".yml"))]
    told: dict[str, str] = {}
    for one in (path, *(f"{path}.d/{name}" for name in names)):
        file = tree.read(one)
        if "Is a directory" in file.problem:  # passed over
            continue
        try:
            text = (readable(file) or b"").decode("utf-8-sig")
            told.update(yaml_block.top(text, _KEYS))
        except ValueError as problem:
            raise _refused(one, str(problem)) from None
    return told


def _from_options(argv: tuple[str, ...]) -> dict[str, str]:
    """The last of each counts; a flag alone is true."""
    told = {}
    for place, word in enumerate(argv):
        key, equals, value = word.partition("=")
        name = key.lstrip("-")
        if not key.startswith("-") or name not in _KEYS:
            continue
        if not equals and name in ("docker", "disable-agent"):
            value = "true"
        elif not equals:
            value = argv[place + 1] if place + 1 < len(argv) else ""
        told[name] = value.strip("'\"")
    return told


def _refused(path: str, why: str) -> RefusedError:
    return RefusedError(
        "yaml-not-understood",
        f"{path} cannot be read for what decides who pulls images: {why}",
        cause="this agent reads only its plain scalars, and guesses nothing",
        cure=f"write {', '.join(_KEYS[:4])} in {path} as `key: value`, each on its own line",
    )


_BASE = re.compile(r'\{\{-?\s*template\s+"base"')


def template(tree: Tree, told: PullConfig) -> tuple[str, str]:
    """The template that its containerd's configuration is made from, and what is wrong with it.

    Empty words for none. The one for version 3 counts where containerd reads that version, as the
    configuration of the last start shows, else the older one
    (https://docs.k3s.io/advanced#configuring-containerd).
    """
    folder = f"{told.data}/agent/etc/containerd"
    made = tree.read(f"{folder}/config.toml").content
    older = made is not None and re.search(rb"^version\s*=\s*3\b", made, re.MULTILINE) is None
    names = ("config.toml.tmpl",) if older else ("config-v3.toml.tmpl", "config.toml.tmpl")
    for name in names:
        content = tree.read(f"{folder}/{name}").content
        if content is not None:
            text = content.decode("utf-8", "replace")
            return f"{folder}/{name}", "" if _carries(text, folder) else _lacks(name, folder)
    return "", ""


def _carries(text: str, folder: str) -> bool:
    """Whether what registries.yaml says comes into the configuration."""
    text = re.sub(r"\{\{-?\s*/\*.*?\*/\s*-?\}\}", "", text, flags=re.DOTALL)
    lines = [line.strip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    ours = (".NodeConfig.Containerd.Registry", f"{folder}/certs.d")
    return any(
        _BASE.search(line)
        or ".PrivateRegistryConfig" in line
        or (line.startswith("config_path") and any(one in line for one in ours))
        for line in lines
    )


def _lacks(name: str, folder: str) -> str:
    table = "io.containerd.cri.v1.images" if "v3" in name else "io.containerd.grpc.v1.cri"
    return (
        f'[plugins."{table}".registry] with config_path = "{folder}/certs.d", '
        'or {{ template "base" . }}'
    )
