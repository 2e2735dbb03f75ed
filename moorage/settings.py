"""``invoke.yaml`` and ``INVOKE_*`` through Invoke's own configuration -> frozen dataclasses.

The dataclasses below are the reference for every key, its type and its default. An unknown key or
a wrong type is refused with its file and its place; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage.errors import Refused

ROOT = Path(__file__).resolve().parent.parent

# RFC 1123, section 2.1, in the lower case that image references demand.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# https://github.com/distribution/reference: path-component and tag.
REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class BadSetting(Refused):
    """A setting with a value it cannot have: ``place`` is its dotted key, ``source`` its giver."""

    def __init__(self, source: str, place: str, expected: str) -> None:
        super().__init__(
            "bad-setting",
            f"{place} in {source} is not right",
            cause=f"expected {expected}",
            cure=f"correct {place} in {source}; moorage/settings.py lists every key",
            path=source if os.sep in source or source.endswith(".yaml") else "",
        )
        self.place = place
        self.expected = expected


@dataclass(frozen=True)
class EngineSettings:
    """The Docker engine, where none answers and Moorage starts one by hand."""

    # Where that one keeps its data (dockerd --data-root); empty: where dockerd itself would.
    data: str = ""


@dataclass(frozen=True)
class RegistrySettings:
    """The registry: its name, where it listens and where it keeps its data."""

    host: str = "my.registry.io"
    port: int = 443
    # The address nodes use. "auto": for each node, this machine's own address on the way to it.
    address: str = "auto"
    # Addresses the registry listens on.
    listen: str = "0.0.0.0"  # noqa: S104 - nodes have to reach it; TLS and login guard it
    # A reference of an image of the CNCF Distribution; "auto": Docker Hub's, else built here.
    image: str = "auto"
    user: str = "moorage"
    # Relative to the project's folder.
    data: str = ".moorage/registry/data"
    metrics_port: int = 5001
    # The container's name; two checkouts on one machine need two (and two ports).
    container: str = "moorage-registry"


@dataclass(frozen=True)
class CertsSettings:
    """Keys and certificates. Names beyond ``registry.host`` go into ``names``."""

    dir: str = "certs"
    key: str = "ec-p256"  # or rsa-4096
    days: int = 365
    ca_days: int = 3650
    renew_before: int = 30
    names: tuple[str, ...] = ()
    name_constraints: bool = False


@dataclass(frozen=True)
class ImageSettings:
    """The demo image."""

    name: str = "serve_hostname"
    tag: str = "0.0.1"
    base: str = "auto"


@dataclass(frozen=True)
class LabSettings:
    """Throw-away nodes: a comma-separated list of containerd lines, `2*3` for three of them."""

    nodes: str = "1.6,1.7,2"
    # What nodes are called: lab1, lab2, … Two checkouts on one engine need two names.
    prefix: str = "lab"
    # A Debian mirror for the packages of the lab; "auto": the one this machine uses.
    mirror: str = "auto"
    # The cluster of `inv lab.up --kubernetes`. 1.20.2 is what Debian bookworm carries as source,
    # so it can be had where nothing else is reachable.
    kubernetes_version: str = "1.20.2"
    # A folder with kube-apiserver, kubelet, …; empty: the user's cache, else downloaded or built.
    kubernetes_binaries: str = ""
    # Where the project's own releases are, as VERSION/bin/linux/ARCH below it; empty: not asked.
    kubernetes_release: str = "https://dl.k8s.io/release"


@dataclass(frozen=True)
class NodesSettings:
    """How nodes are reached over SSH; what is not said here, ~/.ssh/config says."""

    hosts: tuple[str, ...] = ()
    user: str = ""
    ssh_config: str = ""
    known_hosts: str = ""
    connect_timeout: int = 10
    parallel: int = 16
    # Whether it is asked before running containers on nodes are stopped; false: as with --yes.
    confirm: bool = True
    # Further attempts at a host whose connection broke.
    retries: int = 2
    # What of a node is set up, as docker,containerd; empty: every runtime that is there.
    parts: tuple[str, ...] = ()
    # Registries whose images nodes ask of ours first, as docker.io,quay.io …
    mirrors: tuple[str, ...] = ()
    # … and whether they ask those themselves for what ours does not have.
    mirror_fallback: bool = True
    # Further names of the registry that nodes shall know; its certificate must have them.
    names: tuple[str, ...] = ()
    # "http": the registry that nodes ask has no TLS.
    insecure: str = ""
    # The host's own trust store too: every program on the node trusts the CA then.
    system_store: bool = False
    # Add the registry to NO_PROXY of runtimes that ask a proxy for it.
    fix_proxy: bool = False
    # Groups for --hosts=@web: a name -> a list of hosts, ranges and other groups.
    groups: Mapping[str, str] = field(default_factory=dict)
    # Whether the agent stays on a node after nodes.trust, and keeps its trust right …
    resident: bool = True
    # … and where it listens.
    agent_port: int = 7443


@dataclass(frozen=True)
class KubernetesSettings:
    """The cluster, and how our objects in it are called."""

    # Files, separated by ':'. "": $KUBECONFIG, the lab's cluster, ~/.kube/config, or the pod's own.
    kubeconfig: str = ""
    context: str = ""
    namespaces: tuple[str, ...] = ("default",)
    secret: str = "my-registry"  # noqa: S105 - the name of one
    pod: str = "private-reg"
    # Where the agents live, and an image with Python 3.9 or later for them; "auto":
    # python:3.13-slim, from Docker Hub.
    agents_namespace: str = "moorage-system"
    agent_image: str = "auto"


@dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    certs: CertsSettings = field(default_factory=CertsSettings)
    image: ImageSettings = field(default_factory=ImageSettings)
    lab: LabSettings = field(default_factory=LabSettings)
    nodes: NodesSettings = field(default_factory=NodesSettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)

    @property
    def root(self) -> Path:
        """The project's folder."""
        return ROOT

    @property
    def state(self) -> Path:
        """What Moorage remembers between runs; git-ignored, 0700."""
        return ROOT / ".moorage"

    @property
    def certs_dir(self) -> Path:
        return ROOT / self.certs.dir

    @property
    def registry_data(self) -> Path:
        return ROOT / self.registry.data

    @property
    def registry_name(self) -> str:
        """``host`` or ``host:port``: how images, folders and logins name the registry."""
        registry = self.registry
        return registry.host if registry.port == 443 else f"{registry.host}:{registry.port}"

    def with_nodes(self, **given: str | bool | None) -> Settings:
        """The settings with a command's own words for keys of ``nodes``; None leaves a key alone.

        Raises Refused where a word is not right, and names the option.
        """
        kinds = typing.get_type_hints(NodesSettings)
        values = {
            key: _convert("the command line", f"--{key}", kinds[key], value)
            for key, value in given.items()
            if value is not None
        }
        changed = dataclasses.replace(self, nodes=dataclasses.replace(self.nodes, **values))
        _check(changed, "the command line")
        return changed

    @property
    def image_reference(self) -> str:
        return f"{self.registry_name}/{self.image.name}:{self.image.tag}"


def defaults() -> dict[str, Any]:
    """Every key with its default, for Invoke: it reads ``INVOKE_*`` only for keys it knows.

    Lists are written as comma-separated strings, the one form an environment variable can carry.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return ",".join(value) if isinstance(value, tuple) else value

    tree: dict[str, Any] = plain(dataclasses.asdict(Settings()))
    return tree


def parse(tree: Mapping[str, Any], *, source: str = "invoke.yaml") -> Settings:
    """A nested mapping -> Settings.

    Keys of Invoke itself (``tasks``, ``run``, ``sudo``, …) are passed over. Raises Refused with
    the file, the key, and what is expected.
    """
    sections: dict[str, Any] = {}
    kinds = typing.get_type_hints(Settings)
    for section, kind in kinds.items():
        given = tree.get(section, {})
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            raise BadSetting(source, section, f"a section of keys, not {_describe(given)}")
        sections[section] = _parse_section(source, section, kind, given)
    settings = Settings(**sections)
    _check(settings, source)
    return settings


def unknown_sections(tree: Mapping[str, Any], known: frozenset[str], *, source: str) -> None:
    """Raises Refused for a top-level key that is neither ours nor in ``known`` (Invoke's own)."""
    ours = set(typing.get_type_hints(Settings))
    for key in tree:
        if key not in ours and key not in known:
            raise _unknown(source, str(key), "", ours)


def unknown_variables(environment: Mapping[str, str]) -> None:
    """Raises Refused for an ``INVOKE_<SECTION>_*`` variable that names no key.

    Invoke passes over what it does not know; a misspelt variable would go unnoticed.
    """
    kinds = typing.get_type_hints(Settings)
    for section, kind in kinds.items():
        prefix = f"INVOKE_{section.upper()}_"
        names = {f"{prefix}{f.name.upper()}" for f in dataclasses.fields(kind)}
        for variable in environment:
            if variable.startswith(prefix) and variable not in names:
                raise _unknown("the environment", variable, "", names)


def _parse_section(source: str, section: str, kind: Any, given: Mapping[Any, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in hints:
            raise _unknown(source, str(key), f"{section}.", set(hints))
        values[key] = _convert(source, f"{section}.{key}", hints[key], value)
    return kind(**values)


def _convert(source: str, place: str, kind: Any, value: Any) -> Any:
    if typing.get_origin(kind) is Mapping:  # Mapping[str, str]
        if not isinstance(value, Mapping):
            raise BadSetting(source, place, f"a section of keys, not {_describe(value)}")
        return {
            str(key): _convert(source, f"{place}.{key}", str, item) for key, item in value.items()
        }
    if isinstance(kind, types.GenericAlias):  # tuple[str, ...]
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
            raise BadSetting(source, place, f"a list of words, not {_describe(value)}")
        return tuple(item.strip() for item in items if item.strip())
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        # YAML reads `tag: 1` and `nodes: 1.6` as numbers; guessing back would lose digits.
        raise BadSetting(source, place, f'a word in quotes ("{value}"), not {_describe(value)}')
    if type(value) is not kind:
        names = {str: "a word", int: "a whole number", bool: "true or false"}
        raise BadSetting(source, place, f"{names[kind]}, not {_describe(value)}")
    return value


def _check(settings: Settings, source: str) -> None:
    registry, certs = settings.registry, settings.certs
    check_host_name(registry.host, place="registry.host", source=source)
    data = settings.engine.data
    if data and (not data.startswith("/") or "\0" in data):
        raise BadSetting(source, "engine.data", f"a folder from the root (/…), not {data!r}")
    for place, port in (
        ("registry.port", registry.port),
        ("registry.metrics_port", registry.metrics_port),
        ("nodes.agent_port", settings.nodes.agent_port),
    ):
        if not 1 <= port <= 65535:
            raise BadSetting(source, place, f"a port from 1 to 65535, not {port}")
    if registry.port == registry.metrics_port:
        raise BadSetting(source, "registry.metrics_port", "a port other than registry.port")
    for place, address in (
        ("registry.address", registry.address),
        ("registry.listen", registry.listen),
    ):
        if address != "auto" or place == "registry.listen":
            _check_address(source, place, address)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", registry.user):
        raise BadSetting(source, "registry.user", "letters, digits, '.', '_' and '-'")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,62}", registry.container):
        raise BadSetting(source, "registry.container", "a container's name, as moorage-registry")
    if certs.key not in ("ec-p256", "rsa-4096"):
        raise BadSetting(source, "certs.key", f"ec-p256 or rsa-4096, not {certs.key!r}")
    for place, days in (("certs.days", certs.days), ("certs.ca_days", certs.ca_days)):
        if not 1 <= days <= 36500:
            raise BadSetting(source, place, f"a number of days from 1 to 36500, not {days}")
    if not 0 <= certs.renew_before < certs.days:
        raise BadSetting(source, "certs.renew_before", "fewer days than certs.days")
    for name in certs.names:
        if not _is_address(name):
            check_host_name(name.removeprefix("*."), place="certs.names", source=source)
    for place, folder in (("certs.dir", certs.dir), ("registry.data", registry.data)):
        if not folder.strip() or "\0" in folder:
            raise BadSetting(source, place, "a folder")
    if not REPOSITORY.fullmatch(settings.image.name):
        raise BadSetting(source, "image.name", "a repository name in lower case, as a/b_c")
    if not TAG.fullmatch(settings.image.tag):
        raise BadSetting(source, "image.tag", "a tag: letters, digits, '_', '.', '-'; at most 128")
    _check_lab(settings.lab, source)
    for place, count in (
        ("nodes.connect_timeout", settings.nodes.connect_timeout),
        ("nodes.parallel", settings.nodes.parallel),
    ):
        if not 1 <= count <= 1000:
            raise BadSetting(source, place, f"a number from 1 to 1000, not {count}")
    if not 0 <= settings.nodes.retries <= 20:
        raise BadSetting(
            source, "nodes.retries", f"a number from 0 to 20, not {settings.nodes.retries}"
        )
    for name in settings.nodes.groups:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
            raise BadSetting(source, "nodes.groups", f"names of letters and digits, not {name!r}")
    for name in settings.nodes.names:
        check_host_name(name, place="nodes.names", source=source)
    if settings.nodes.insecure not in ("", "http"):
        expected = f'"http" or nothing, not {settings.nodes.insecure!r}'
        raise BadSetting(source, "nodes.insecure", expected)
    _check_kubernetes(settings.kubernetes, source)


def _check_lab(lab: LabSettings, source: str) -> None:
    # Imported here: the lab's grammar is the lab's, and `inv --list` has no need of it.
    from moorage.mix import parse_mix

    parse_mix(lab.nodes, source=f"lab.nodes in {source}")
    if not re.fullmatch(r"[a-z]([a-z-]{0,38}[a-z])?", lab.prefix):
        raise BadSetting(
            source, "lab.prefix", f"letters a to z and '-', at most 40, not {lab.prefix!r}"
        )
    if lab.mirror != "auto" and not re.fullmatch(r"https?://\S+", lab.mirror):
        raise BadSetting(source, "lab.mirror", f"auto, or an http address, not {lab.mirror!r}")
    if not re.fullmatch(r"\d{1,3}\.\d{1,3}\.\d{1,3}", lab.kubernetes_version):
        expected = f"a version such as 1.20.2, not {lab.kubernetes_version!r}"
        raise BadSetting(source, "lab.kubernetes_version", expected)
    release = lab.kubernetes_release
    # Checksums come from the same place, so only TLS tells that it is the right one.
    if release and not re.match(r"https://\w|http://(127\.0\.0\.1|localhost)[:/]", release):
        raise BadSetting(source, "lab.kubernetes_release", f"an https address, not {release!r}")


def _check_kubernetes(kubernetes: KubernetesSettings, source: str) -> None:
    if not kubernetes.namespaces:
        raise BadSetting(source, "kubernetes.namespaces", "at least one namespace")
    for name in (*kubernetes.namespaces, kubernetes.agents_namespace):
        if not _LABEL.fullmatch(name):
            raise BadSetting(source, "kubernetes.namespaces", f"names of namespaces, not {name!r}")
    for place, name in (
        ("kubernetes.secret", kubernetes.secret),
        ("kubernetes.pod", kubernetes.pod),
    ):
        # A pod's name becomes its host name and a label's value: 63 characters, no dots.
        if not _LABEL.fullmatch(name):
            raise BadSetting(source, place, f"a name of a-z, 0-9 and '-', at most 63, not {name!r}")


def check_host_name(name: str, *, place: str, source: str) -> None:
    """Raises Refused where ``name`` is no lower-case DNS name (RFC 1123, section 2.1)."""
    expected = "a DNS name such as my.registry.io"
    if "://" in name:
        raise BadSetting(source, place, f"{expected}, without the scheme in {name!r}")
    if name != name.lower():
        raise BadSetting(
            source, place, f"{expected}, in lower case (image names allow no other): {name!r}"
        )
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        hint = "; a port goes into registry.port" if re.fullmatch(r".+:\d+", name) else ""
        raise BadSetting(source, place, f"{expected}, not {name!r}{hint}")
    if _is_address(name):
        raise BadSetting(source, place, f"{expected}, not an address")
    if len(labels) < 2 and name != "localhost":
        # Docker reads a first component without a dot or a port as a Docker Hub user.
        raise BadSetting(source, place, f"{expected}, with a dot: images read {name!r} as a user")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_address(source: str, place: str, text: str) -> None:
    if not _is_address(text):
        raise BadSetting(source, place, f"an IP address, not {text!r}")


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    names = {bool: "true/false", int: "a number", float: "a number", str: "a word"}
    names |= {list: "a list", dict: "a section of keys"}
    return f"{names.get(type(value), 'something else')} ({value!r})"


def _unknown(source: str, key: str, prefix: str, known: set[str]) -> Refused:
    near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    return Refused(
        "unknown-setting",
        f"{prefix}{key} in {source} is not a setting",
        cause=hint,
        cure=f"correct or remove {prefix}{key} in {source}",
        path=source if source.endswith(".yaml") else "",
    )
