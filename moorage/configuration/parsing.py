"""A nested mapping -> :class:`moorage.settings.Settings`, or what is wrong with it and where.

An unknown key or a wrong type is refused with its file and its place; nothing is guessed.
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
from typing import Any

from moorage.configuration.allowed import CHOICES, EACH, FORMS, LABEL, SPANS
from moorage.configuration.paths import expanded
from moorage.errors import Refused
from moorage.settings import (
    KubernetesSettings,
    LabSettings,
    NodesSettings,
    RegistrySettings,
    Settings,
    names_of,
    sections,
)

# Who gave a value: one name for all, or a function from a key's place to the name.
Giver = str | Callable[[str], str]


class BadSetting(Refused):
    """A setting with a value it cannot have: ``place`` is its dotted key, ``source`` its giver."""

    def __init__(self, giver: Giver, place: str, expected: str) -> None:
        source = giver_of(giver, place)
        super().__init__(
            "bad-setting",
            f"invalid {place} in {source}",
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


def parse(tree: Mapping[str, Any], *, source: Giver = "invoke.yaml", profile: str = "") -> Settings:
    """A nested mapping -> Settings.

    Keys of Invoke itself (``tasks``, ``run``, ``sudo``, …) are passed over. Raises Refused with
    the file, the key, and what is expected.
    """
    parsed: dict[str, Any] = {}
    own = names_of(profile)
    for section, kind in sections().items():
        given = tree.get(section, {})
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            raise BadSetting(source, section, f"a section of keys, not {_describe(given)}")
        if section == "registry" and given.get("external") is True:
            given = _without_url(given, source)
        parsed[section] = _parse_section(source, section, kind, {**own.get(section, {}), **given})
    settings = Settings(**parsed, profile=profile)
    _check(settings, source)
    return settings


def with_nodes(settings: Settings, **given: str | bool | None) -> Settings:
    """The settings with a command's own words for keys of ``nodes``; None leaves a key alone.

    Raises Refused if a word is not right, and names the option.
    """
    kinds = typing.get_type_hints(NodesSettings)
    values = {
        key: _convert("the command line", f"--{key}", kinds[key], value)
        for key, value in given.items()
        if value is not None
    }
    changed = dataclasses.replace(settings, nodes=dataclasses.replace(settings.nodes, **values))
    _check(changed, "the command line")
    return changed


def unknown_sections(tree: Mapping[str, Any], known: frozenset[str], *, source: str) -> None:
    """Raises Refused for a top-level key that is neither ours nor in ``known`` (Invoke's own)."""
    ours = set(sections())
    for key in tree:
        if key not in ours and key not in known:
            raise UnknownSetting(source, str(key), "", ours)


def unknown_variables(environment: Mapping[str, str]) -> None:
    """Raises Refused for an ``INVOKE_<SECTION>_*`` variable that names no key.

    Invoke passes over what it does not know; a misspelt variable would go unnoticed.
    """
    for section, kind in sections().items():
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
        place = f"{section}.{key}"
        if key not in hints:
            raise UnknownSetting(giver_of(source, place), place, f"{section}.", set(hints))
        values[key] = _convert(source, place, hints[key], value)
        if place in EACH:
            values[key] = EACH[place].usual(values[key])
        if isinstance(values[key], str):
            values[key] = _at_home(source, place, values[key])
    return kind(**values)


def _at_home(source: Giver, place: str, value: str) -> str:
    try:
        return expanded(place, value, f"{place} in {giver_of(source, place)}")
    except Refused as problem:
        problem.place = place  # type: ignore[attr-defined]
        raise


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
    for place, known in EACH.items():
        section, _, key = place.partition(".")
        for word in getattr(getattr(settings, section), key):
            if word not in known.names:
                expected = f"some of {', '.join(known.names)}, not {word!r}"
                raise BadSetting(source, place, expected)
    registry, certs = settings.registry, settings.certs
    check_host_name(registry.host, place="registry.host", source=source)
    if registry.address != "auto":
        _check_address(source, "registry.address", registry.address)
    _check_address(source, "registry.listen", registry.listen)
    if registry.ca and ("\0" in registry.ca or not registry.external):
        raise BadSetting(source, "registry.ca", "a PEM file, with registry.external: true")
    _check_client(registry, source)
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


def _check_client(registry: RegistrySettings, source: Giver) -> None:
    """What nodes present to a registry; our own front asks none of them for a certificate."""
    given = {"client_cert": registry.client_cert, "client_key": registry.client_key}
    for key, other in zip(given, reversed(given), strict=True):
        if given[key] and ("\0" in given[key] or not registry.external):
            expected = (
                "a PEM file, with registry.external: true; Moorage's own registry asks for none"
            )
            raise BadSetting(source, f"registry.{key}", expected)
        if given[key] and not given[other]:
            raise BadSetting(source, f"registry.{key}", f"registry.{other} beside it")


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
        if not LABEL.fullmatch(name):
            raise BadSetting(source, place, f"names of namespaces, not {name!r}")


def check_host_name(name: str, *, place: str, source: Giver) -> None:
    """Raises Refused if ``name`` is no lower-case DNS name (RFC 1123, section 2.1)."""
    expected, shown = "a DNS name such as my.registry.io", _shown(name)
    if "://" in name:
        raise BadSetting(source, place, f"{expected}, without the scheme in {shown}")
    if name != name.lower():
        raise BadSetting(
            source, place, f"{expected}, in lower case (image names allow no other): {shown}"
        )
    labels = name.split(".")
    if len(name) > 253 or not all(LABEL.fullmatch(label) for label in labels):
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
