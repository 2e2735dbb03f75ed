"""The desired state of one node, parsed strictly at the edge. Both sides share this wire format.

A plan is a JSON document of at most ``MAX_PLAN_BYTES`` bytes. Everything that will end up in a
file (`/etc/hosts`, TOML, a folder name) is checked here: no later room needs to quote or doubt it.
Structure is judged by ``plan.schema.json`` (JSON Schema draft-07), meaning by this module.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from agent.wire.certificates import certificates
from agent.wire.client_pair import ClientPair
from agent.wire.faults import PlanError
from agent.wire.plan_check import Invalid, validate
from agent.wire.runtimes.declared import RUNTIMES

VERSION = 1
MAX_PLAN_BYTES = 1 << 20
MAX_DEPTH = 8
# `system` widens trust to every program of the host: it is set up only where a plan names it.
DEFAULT_PARTS = ("hosts", *(declared.name for declared in RUNTIMES))
PARTS = (*DEFAULT_PARTS, "system")
HTTP = "http"


@dataclass(frozen=True)
class Registry:
    """Where the registry is: the name nodes use, and what they need to trust it.

    ``names`` are further DNS names of the same registry, which its certificate has too.
    ``insecure`` is None, or ``http`` for a registry without TLS. ``client`` is what nodes present
    to a registry that asks its clients for a certificate.
    """

    host: str
    port: int = 443
    address: str | None = None
    ca: str | None = None
    names: tuple[str, ...] = ()
    insecure: str | None = None
    client: ClientPair | None = None

    @property
    def plain_http(self) -> bool:
        return self.insecure == HTTP

    @property
    def name(self) -> str:
        """The registry as image names and folders spell it: no port where it is the usual one."""
        usual = 80 if self.plain_http else 443
        return self.host if self.port == usual else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'http' if self.plain_http else 'https'}://{self.name}"

    @property
    def each(self) -> tuple[Registry, ...]:
        """The registry under each of its names, the first one first."""
        return (self, *(replace(self, host=name, names=()) for name in self.names))

    @property
    def spellings(self) -> tuple[Registry, ...]:
        """The registry as image names may spell it: each name, and with the usual port spelled out.

        No runtime takes ``host`` and ``host:443`` for one: each looks for settings by the very word
        in the image's name (measured: containerd 1.6 to 2.1, Docker 20.10 and 28, Podman 4.3).
        """
        found: list[Registry] = []
        for one in self.each:
            found.append(one)
            if one.name == one.host:
                found.append(_WithPort(**{**vars(one), "names": ()}))
        return tuple(found)

    def reference(self, image: str) -> ImageName | None:
        """``image`` taken apart, or None if it is no image of this registry in any spelling."""
        found = (reference(image, one.name) for one in self.spellings if one.host == self.host)
        return next((one for one in found if one is not None), None)

    @property
    def ca_bytes(self) -> bytes:
        """The CA file's content; only for plans that :meth:`Plan.require_ca` has passed."""
        return (self.ca or "").encode("ascii")


class _WithPort(Registry):
    """The same registry as images spell it whose names have the usual port."""

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Verify:
    """The pull that proves it. The login lives in memory only; no ``repr`` shows the password."""

    image: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Options:
    """How careful, how patient. ``plan.schema.json`` describes each."""

    restart: bool = True
    replace: bool = False
    preflight: bool = True
    fix_proxy: bool = False
    pull_timeout: int = 300
    # As long as an apply may take that a killed operator has left behind: restart, pull, or undo.
    lock_wait: int = 60
    run: str = ""
    stop_running: bool = False


@dataclass(frozen=True)
class Mirror:
    """Images ``of`` another registry are asked of ours first: its name, as in image names.

    ``fallback``: what ours does not have, the other registry is asked for itself. ``path``: below
    it its images lie in ours; empty: under the same path.
    """

    of: str
    fallback: bool = True
    path: str = ""

    @property
    def upstream(self) -> str:
        """Where the mirrored registry itself answers."""
        return "https://registry-1.docker.io" if self.of == "docker.io" else f"https://{self.of}"

    def place(self, registry: Registry) -> str:
        """Where its images lie in ours, as image names spell it."""
        return f"{registry.name}/{self.path}" if self.path else registry.name

    def url(self, registry: Registry) -> str:
        """Where ours is asked for them: with a path, what containerd shall not add ``/v2`` to."""
        return f"{registry.url}/v2/{self.path}" if self.path else registry.url


@dataclass(frozen=True)
class Plan:
    """What one node should be like, and how to prove that it is."""

    registry: Registry
    parts: tuple[str, ...] = DEFAULT_PARTS
    mirrors: tuple[Mirror, ...] = ()
    verify: Verify | None = None
    options: Options = Options()

    @classmethod
    def parse(cls, document: bytes) -> Plan:
        """The plan in ``document``. Raises :class:`PlanError`, and nothing else, for any bytes."""
        data = _load(document)
        _check_version(data)
        try:
            validate(data)
        except Invalid as problem:
            where, _, what = problem.message.partition(" ")
            where = "plan" + where[len("data") :]
            raise PlanError(
                "plan-invalid",
                f"{where}: {what}",
                cause="the plan does not fit plan.schema.json",
                cure="correct that field; docs/plan.md describes them all",
            ) from None
        registry = data["registry"]
        plan = cls(
            registry=Registry(
                host=_host(registry["host"], registry["port"]),
                port=registry["port"],
                address=_address(registry["address"]),
                ca=certificates(registry["ca"]),
                names=_names(registry["names"], registry["host"], registry["port"]),
                insecure=registry["insecure"],
                client=ClientPair.of(registry["client"], registry["insecure"]),
            ),
            mirrors=tuple(Mirror(**mirror) for mirror in data["mirrors"]),
            parts=tuple(part for part in PARTS if part in data["parts"]),
            verify=None if data["verify"] is None else Verify(**data["verify"]),
            options=Options(**data["options"]),
        )
        if plan.verify is not None:
            _check_verify(plan.verify, plan.registry)
        _check_mirrors(plan.mirrors, plan.registry)
        if not re.fullmatch(r"[0-9A-Za-z-]{0,64}", plan.options.run):
            raise PlanError(
                "plan-invalid",
                "plan.options.run: only letters, digits and dashes",
                cause="this node's records keep it, and reports show it",
                cure="leave it away; undo in waves makes one up",
            )
        return plan

    def require_ca(self) -> None:
        """Refuse a plan without a CA where one is needed (apply, verify)."""
        if self.registry.ca is None and not self.registry.plain_http:
            raise PlanError(
                "plan-invalid",
                "plan.registry.ca: the CA certificate is missing",
                cause="trust cannot be set up or proved without it",
                cure="put the CA's PEM into registry.ca (nodes.trust does)",
            )

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON types, password and key too: for the wire, never for a log."""
        document: dict[str, Any] = {"version": VERSION, **asdict(self)}
        document["parts"] = list(self.parts)
        for name in ("run", "stop_running"):  # agents from before it know no such field
            if not document["options"][name]:
                del document["options"][name]
        if self.registry.client is None:
            del document["registry"]["client"]
        for mirror in document["mirrors"]:
            if not mirror["path"]:
                del mirror["path"]
        return document


def _load(document: bytes) -> dict[str, Any]:
    if len(document) > MAX_PLAN_BYTES:
        raise PlanError(
            "plan-too-big",
            f"the plan has {len(document)} bytes; {MAX_PLAN_BYTES} are allowed",
            cause="a plan is a few kilobytes, most of it the CA certificate",
            cure="send a plan (docs/plan.md), and no other file",
        )
    try:
        text = document.decode("utf-8")
        _check_depth(text)
        data = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_number,
            parse_float=_no_number,
            parse_int=_short_int,
        )
    except (ValueError, RecursionError) as problem:
        raise PlanError(
            "plan-not-json",
            f"the plan is not JSON: {problem}",
            cause="it was cut short, or something else was sent in its place",
            cure="send one JSON document in UTF-8 on standard input",
        ) from None
    if not isinstance(data, dict):
        raise PlanError(
            "plan-invalid", "plan: must be an object", cure='send {"version": 1, "registry": …}'
        )
    return data


def _check_depth(text: str) -> None:
    depth = deepest = 0
    for mark in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    if deepest > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return result


def _no_number(text: str) -> Any:
    raise ValueError(f"{text[:20]} is not a whole number")


def _short_int(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError("a number of more than 18 digits")
    return int(digits)


def _check_version(data: dict[str, Any]) -> None:
    version = data.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise PlanError(
            "plan-too-new",
            f"this is a plan of version {version}; this agent reads version {VERSION}",
            cause="the operator's Moorage is newer than this agent",
            cure="let the operator's side send its own agent (nodes.trust does)",
        )
    if version is True:  # JSON Schema's `enum: [1]` lets true pass in Python
        raise PlanError("plan-invalid", "plan.version: must be 1", cure='set "version": 1')


_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def _host(host: str, port: int) -> str:
    labels = host.split(".")
    cure = "use the bare DNS name, such as my.registry.io"
    if "://" in host or "/" in host:
        problem = "has a scheme or a path"
    elif ":" in host:
        problem = "has a port; the port is a field of its own"
    elif host != host.lower():
        problem = "has an upper-case letter; image names cannot"
        cure = f"write it as {host.lower()}"
    elif not all(_LABEL.fullmatch(label) for label in labels):
        problem = "is not a DNS name"
    elif re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        problem = "is an address, not a DNS name"
    elif len(labels) == 1 and port == 443 and host != "localhost":
        problem = "has no dot, so runtimes would look for its images on Docker Hub"
        cure = f"use a name with a dot, such as {host}.internal, or a port other than 443"
    else:
        return host
    raise PlanError(
        "bad-registry-name", f"the registry's name {host!r} {problem}", cause=problem, cure=cure
    )


def _names(names: list[str], host: str, port: int) -> tuple[str, ...]:
    checked = tuple(_host(name, port) for name in names)
    if host in checked:
        raise PlanError(
            "plan-invalid",
            f"plan.registry.names: {host} is the registry's first name already",
            cause="a name is there twice",
            cure="leave it out of registry.names",
        )
    return checked


def _check_mirrors(mirrors: tuple[Mirror, ...], registry: Registry) -> None:
    seen = [mirror.of for mirror in mirrors]
    for mirror in mirrors:
        host, colon, port = mirror.of.partition(":")
        if "/" in mirror.of:
            problem = "it has a scheme or a path"
        elif colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            problem = "its port is not a number from 1 to 65535"
        elif mirror.of in {one.name for one in registry.spellings}:
            problem = "a registry is not a mirror of itself"
        elif seen.count(mirror.of) > 1:
            problem = "it is there twice"
        elif mirror.path and not re.fullmatch(_REPOSITORY, mirror.path):
            problem = f"{mirror.path!r} is not a path of an image's name"
        else:
            _host(host, int(port) if colon else 443)
            continue
        raise PlanError(
            "plan-invalid",
            f"plan.mirrors: {mirror.of!r} cannot be mirrored: {problem}",
            cause=problem,
            cure='name a registry as image names do, such as {"of": "docker.io"}',
        )


def _address(address: str | None) -> str | None:
    if address is None:
        return None
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        parsed = None
    if parsed is None or "%" in address or parsed.is_unspecified or parsed.is_multicast:
        raise PlanError(
            "bad-address",
            f"{address!r} is not an address a registry can have",
            cause="registry.address must be one IPv4 or IPv6 address that nodes can reach",
            cure="give the address, or null to leave the hosts file alone",
        )
    return str(parsed)


# The grammar of github.com/distribution/reference, lower-case repository under this registry.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<repository>{_REPOSITORY})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)


class ImageName(NamedTuple):
    """An image under a registry, taken apart: ``version`` is its digest, else its tag."""

    repository: str
    version: str


def reference(image: str, registry: str) -> ImageName | None:
    """``image`` taken apart, or None if it is no image under ``registry``."""
    prefix = registry + "/"
    match = _REFERENCE.fullmatch(image[len(prefix) :]) if image.startswith(prefix) else None
    if match is None or len(prefix + match["repository"]) > 255:
        return None
    return ImageName(match["repository"], match["digest"] or match["tag"] or "latest")


def _check_verify(verify: Verify, registry: Registry) -> None:
    if registry.reference(verify.image) is None:
        raise PlanError(
            "bad-image",
            f"{verify.image!r} is not the name of an image under {registry.name}",
            cause=f"the proving pull must come from {registry.name}",
            cure=f"name it like {registry.name}/serve_hostname:0.0.1",
        )
    if (verify.username is None) != (verify.password is None):
        raise PlanError(
            "plan-invalid",
            "plan.verify: username and password go together",
            cause="one of them is missing",
            cure="give both, or neither for a registry without a login",
        )
    for value in (verify.username, verify.password):
        if value is not None and (not value or any(ord(mark) < 32 for mark in value)):
            raise PlanError(
                "plan-invalid",
                "plan.verify: username and password must be text without control characters",
                cause="an empty one, or one with a line break, cannot be sent as a login",
                cure="correct the login",
            )
    if verify.username is not None and ":" in verify.username:
        raise PlanError(
            "plan-invalid",
            "plan.verify.username: a colon cannot be in a user name",
            cause="HTTP's basic authentication ends the name at the first colon",
            cure="use a user name without one",
        )
