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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from moorage.errors import Refused

ROOT = Path(__file__).resolve().parent.parent

# RFC 1123, section 2.1, in the lower case that image references demand.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# https://github.com/distribution/reference: path-component and tag.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

# Who gave a value: one name for all, or a function from a key's place to the name.
Giver = str | Callable[[str], str]


class Span(NamedTuple):
    """The least and the greatest value of a whole number, and what such a number is called."""

    low: int
    high: int
    kind: str


class Form(NamedTuple):
    """What a word has to match as a whole, and how that is said."""

    pattern: str
    expected: str


_PORT = Span(1, 65535, "port")
_DAYS = Span(1, 36500, "number of days")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/: a pod's name becomes
# its host name and a label's value.
_DURATION = r"[0-9]{1,6}[smhdw]"
_OBJECT = Form(_LABEL.pattern, "a name of a-z, 0-9 and '-', at most 63")

# What one value alone may be, as data: :func:`parse` holds it, the JSON Schema says it.
SPANS: Mapping[str, Span] = {
    "registry.port": _PORT,
    "registry.metrics_port": _PORT,
    "certs.days": _DAYS,
    "certs.ca_days": _DAYS,
    "certs.renew_before": Span(0, 36499, "number of days"),
    "nodes.agent_port": _PORT,
    "nodes.connect_timeout": Span(1, 1000, "number"),
    "nodes.parallel": Span(1, 1000, "number"),
    "nodes.retries": Span(0, 20, "number"),
    "upkeep.keep": Span(0, 999999, "number of tags"),
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "certs.key": ("ec-p256", "rsa-4096"),
    "nodes.insecure": ("http", ""),
}
FORMS: Mapping[str, Form] = {
    "engine.data": Form(r"(/[^\x00]*)?", "a folder from the root (/…)"),
    "registry.user": Form(
        r"[A-Za-z0-9._@+$-]{1,64}", "1 to 64 letters, digits, '.', '_', '-', '@', '+' and '$'"
    ),
    "registry.container": Form(
        r"[A-Za-z0-9][A-Za-z0-9_.-]{1,62}", "a container's name, as moorage-registry"
    ),
    "registry.data": Form(r"[^\x00]*[^\x00\s][^\x00]*", "a folder"),
    "certs.dir": Form(r"[^\x00]*[^\x00\s][^\x00]*", "a folder"),
    "image.name": Form(REPOSITORY.pattern, "a repository name in lower case, as a/b_c"),
    "image.tag": Form(TAG.pattern, "a tag: letters, digits, '_', '.', '-'; at most 128"),
    # {registry} comes last, so that two registries never meet at one path.
    "nodes.mirror_path": Form(
        rf"|(?:{_COMPONENT}/)*\{{registry\}}",
        "{registry}, a path before it such as mirror/{registry}, or nothing",
    ),
    "lab.prefix": Form(r"[a-z]([a-z-]{0,38}[a-z])?", "letters a to z and '-', at most 40"),
    "lab.mirror": Form(r"auto|https?://\S+", "auto, or an http address"),
    "lab.kubernetes_version": Form(
        r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}", "a version such as 1.20.2"
    ),
    # Checksums come from the same place, so only TLS tells that it is the right one.
    "lab.kubernetes_release": Form(
        r"|https://\w.*|http://(127\.0\.0\.1|localhost)[:/].*", "an https address"
    ),
    "kubernetes.secret": _OBJECT,
    "kubernetes.pod": _OBJECT,
    "upkeep.older_than": Form(f"({_DURATION})?", "a number and one of s, m, h, d and w, as 30d"),
    "upkeep.grace": Form(_DURATION, "a number and one of s, m, h, d and w, as 1h"),
    "upkeep.at": Form(r"([01][0-9]|2[0-3]):[0-5][0-9]", "a time of the day in quotes, as '03:17'"),
    "upkeep.textfile": Form(
        r"|/[^\x00\n]*[^/\x00\n]\.prom", "a file from the root (/…) that ends with .prom"
    ),
}


class BadSetting(Refused):
    """A setting with a value it cannot have: ``place`` is its dotted key, ``source`` its giver."""

    def __init__(self, giver: Giver, place: str, expected: str) -> None:
        source = giver_of(giver, place)
        super().__init__(
            "bad-setting",
            f"{place} in {source} is not right",
            cause=f"expected {expected}",
            cure=f"correct {place} in {source}; moorage/settings.py lists every key",
            path=source if _is_file(source) else "",
        )
        self.place = place
        self.expected = expected


class UnknownSetting(Refused):
    """A key that does not exist: ``place`` is as it was given, ``known`` what there is."""

    def __init__(self, source: str, place: str, prefix: str, known: set[str]) -> None:
        key = place.removeprefix(prefix)
        near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
        super().__init__(
            "unknown-setting",
            f"{place} in {source} is not a setting",
            cause=f"did you mean {prefix}{near[0]}?"
            if near
            else f"known: {', '.join(sorted(known))}",
            cure=f"correct or remove {place} in {source}",
            path=source if _is_file(source) else "",
        )
        self.place = place


def giver_of(giver: Giver, place: str) -> str:
    """Who gave the value at ``place``."""
    return giver if isinstance(giver, str) else giver(place)


def _is_file(source: str) -> bool:
    return os.sep in source or source.endswith((".yaml", ".yml", ".json", ".py"))


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
    # Somebody else runs it (Harbor, Nexus, GitLab, ...): nodes trust it, and it is never stood up.
    # `host` may then be its URL, as https://harbor.example.com:8443/.
    external: bool = False
    # The CA of such a one: a PEM file; empty: what `inv registry.ca` has stored.
    ca: str = ""


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
    # Whether it is asked before nodes change, and before running containers on nodes are stopped;
    # false: as with --yes.
    confirm: bool = True
    # Further attempts at a host whose connection broke.
    retries: int = 2
    # What of a node is set up, as docker,containerd; empty: every runtime that is there.
    parts: tuple[str, ...] = ()
    # Registries whose images nodes ask of ours first, as docker.io,quay.io …
    mirrors: tuple[str, ...] = ()
    # … and whether they ask those themselves for what ours does not have.
    mirror_fallback: bool = True
    # Where their images lie in ours, below which path; {registry} is the other registry's name.
    # Empty: under the same path, so two registries can meet.
    mirror_path: str = "{registry}"
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
class UpkeepSettings:
    """What `inv upkeep` does beside renewing and collecting, and when a timer has it done."""

    # The prune policy, as the options of `inv images.prune`; with none of the first three set,
    # nothing is pruned. keep: 0 says nothing.
    keep: int = 0
    older_than: str = ""
    untagged: bool = False
    protect: tuple[str, ...] = ()
    without_nodes: bool = False
    # No blob is collected that was pushed less long ago.
    grace: str = "1h"
    # Where backups go, as `inv registry.backup` takes it; empty: none are made.
    backup: str = ""
    passphrase_file: str = ""
    # What node_exporter's textfile collector shall read; empty: nothing.
    textfile: str = ""
    # The time of the day, by this machine's clock.
    at: str = "03:17"


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
    upkeep: UpkeepSettings = field(default_factory=UpkeepSettings)

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
    def ca_file(self) -> Path:
        """The CA that nodes shall trust (PEM): ours, or that of a registry of somebody else's."""
        registry = self.registry
        if not registry.external:
            return self.certs_dir / "ca.crt"
        if registry.ca:
            return self.root / Path(registry.ca).expanduser()
        # By its name: another registry.host in invoke.yaml never meets the CA of the one before.
        return self.certs_dir / "external" / f"{self.registry_name}.crt"

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


def parse(tree: Mapping[str, Any], *, source: Giver = "invoke.yaml") -> Settings:
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
        if section == "registry" and given.get("external") is True:
            given = _without_url(given, source)
        sections[section] = _parse_section(source, section, kind, given)
    settings = Settings(**sections)
    _check(settings, source)
    return settings


def unknown_sections(tree: Mapping[str, Any], known: frozenset[str], *, source: str) -> None:
    """Raises Refused for a top-level key that is neither ours nor in ``known`` (Invoke's own)."""
    ours = set(typing.get_type_hints(Settings))
    for key in tree:
        if key not in ours and key not in known:
            raise UnknownSetting(source, str(key), "", ours)


def unknown_variables(environment: Mapping[str, str]) -> None:
    """Raises Refused for an ``INVOKE_<SECTION>_*`` variable that names no key.

    Invoke passes over what it does not know; a misspelt variable would go unnoticed.
    """
    kinds = typing.get_type_hints(Settings)
    for section, kind in kinds.items():
        prefix = f"INVOKE_{section.upper()}_"
        hints = typing.get_type_hints(kind)
        # A section of keys has no form that one variable could carry; Invoke reads none.
        keys = [key for key, hint in hints.items() if typing.get_origin(hint) is not Mapping]
        names = {f"{prefix}{key.upper()}" for key in keys}
        for variable in environment:
            if variable.startswith(prefix) and variable not in names:
                raise UnknownSetting("the environment", variable, "", names)


def _without_url(given: Mapping[Any, Any], source: Giver) -> Mapping[Any, Any]:
    """``registry`` with ``host`` and ``port`` in the place of an address of a web page."""
    host = given.get("host")
    if not isinstance(host, str) or not host.startswith("https://"):
        return given
    match = re.fullmatch(r"https://([^/:@?#]+)(?::(\d{1,5}))?/?", host)
    if match is None:
        expected = f"a DNS name or https://NAME:PORT/, without a path, not {_shown(host)}"
        raise BadSetting(source, "registry.host", expected)
    port = int(match[2] or 443)
    if given.get("port", 443) not in (443, port):
        raise BadSetting(source, "registry.port", f"{port}, as registry.host says, or no such key")
    return {**given, "host": match[1].lower(), "port": port}


def _parse_section(source: Giver, section: str, kind: Any, given: Mapping[Any, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in hints:
            place = f"{section}.{key}"
            raise UnknownSetting(giver_of(source, place), place, f"{section}.", set(hints))
        values[key] = _convert(source, f"{section}.{key}", hints[key], value)
    return kind(**values)


def _convert(source: Giver, place: str, kind: Any, value: Any) -> Any:
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


def _check(settings: Settings, source: Giver) -> None:
    for place in (*SPANS, *CHOICES, *FORMS):
        section, _, key = place.partition(".")
        _check_alone(source, place, getattr(getattr(settings, section), key))
    registry, certs = settings.registry, settings.certs
    check_host_name(registry.host, place="registry.host", source=source)
    if registry.address != "auto":
        _check_address(source, "registry.address", registry.address)
    _check_address(source, "registry.listen", registry.listen)
    if registry.ca and ("\0" in registry.ca or not registry.external):
        raise BadSetting(source, "registry.ca", "a PEM file, with registry.external: true")
    for name in certs.names:
        if not _is_address(name):
            check_host_name(name.removeprefix("*."), place="certs.names", source=source)
    _check_lab(settings.lab, source)
    for name in settings.nodes.groups:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
            raise BadSetting(source, "nodes.groups", f"names of letters and digits, not {name!r}")
    for name in settings.nodes.names:
        check_host_name(name, place="nodes.names", source=source)
    _check_namespaces(settings.kubernetes, source)
    # Last, what one value alone is right with and two together are not.
    if registry.port == registry.metrics_port:
        raise BadSetting(source, "registry.metrics_port", "a port other than registry.port")
    if settings.upkeep.backup and not settings.upkeep.passphrase_file:
        expected = "the file with the passphrase of the backups, for nobody is asked at night"
        raise BadSetting(source, "upkeep.passphrase_file", expected)
    if certs.renew_before >= certs.days:
        raise BadSetting(source, "certs.renew_before", "fewer days than certs.days")


def _check_alone(source: Giver, place: str, value: Any) -> None:
    """Raises BadSetting if a value is none of those that its place alone allows."""
    span, form, choices = SPANS.get(place), FORMS.get(place), CHOICES.get(place)
    if span is not None and not span.low <= value <= span.high:
        expected = f"a {span.kind} from {span.low} to {span.high}"
    elif form is not None and not re.fullmatch(form.pattern, value):
        expected = form.expected
    elif choices is not None and value not in choices:
        expected = " or ".join(choice or "nothing" for choice in choices)
    else:
        return
    raise BadSetting(source, place, f"{expected}, not {value!r}")


def _check_lab(lab: LabSettings, source: Giver) -> None:
    # Imported here: the lab's grammar is the lab's, and `inv --list` has no need of it.
    from moorage.mix import parse_mix

    try:
        parse_mix(lab.nodes, source=f"lab.nodes in {giver_of(source, 'lab.nodes')}")
    except Refused as problem:
        problem.place = "lab.nodes"  # type: ignore[attr-defined]
        raise


def _check_namespaces(kubernetes: KubernetesSettings, source: Giver) -> None:
    places = [("kubernetes.namespaces", name) for name in kubernetes.namespaces]
    if not places:
        raise BadSetting(source, "kubernetes.namespaces", "at least one namespace")
    for place, name in (*places, ("kubernetes.agents_namespace", kubernetes.agents_namespace)):
        if not _LABEL.fullmatch(name):
            raise BadSetting(source, place, f"names of namespaces, not {name!r}")


def check_host_name(name: str, *, place: str, source: Giver) -> None:
    """Raises Refused where ``name`` is no lower-case DNS name (RFC 1123, section 2.1)."""
    expected, shown = "a DNS name such as my.registry.io", _shown(name)
    if "://" in name:
        raise BadSetting(source, place, f"{expected}, without the scheme in {shown}")
    if name != name.lower():
        raise BadSetting(
            source, place, f"{expected}, in lower case (image names allow no other): {shown}"
        )
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        hint = "; a port goes into registry.port" if re.fullmatch(r".+:\d+", name) else ""
        raise BadSetting(source, place, f"{expected}, not {shown}{hint}")
    if _is_address(name):
        raise BadSetting(source, place, f"{expected}, not an address")
    if len(labels) < 2 and name != "localhost":
        # Docker reads a first component without a dot or a port as a Docker Hub user.
        raise BadSetting(source, place, f"{expected}, with a dot: images read {shown} as a user")


def _shown(address: str) -> str:
    """An address as it may be told: what stands before an ``@`` may be a password."""
    return repr(re.sub(r"(^|//)[^/]*@", r"\1...@", address))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_address(source: Giver, place: str, text: str) -> None:
    if not _is_address(text):
        raise BadSetting(source, place, f"an IP address, not {text!r}")


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    names = {bool: "true/false", int: "a number", float: "a number", str: "a word"}
    names |= {list: "a list", dict: "a section of keys"}
    return f"{names.get(type(value), 'something else')} ({value!r})"
