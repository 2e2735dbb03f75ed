"""Image references, parsed strictly, and where each lands in our registry. Pure.

The grammar is that of https://github.com/distribution/reference; what it leaves unsaid is added as
Docker does it: ``nginx`` is ``docker.io/library/nginx:latest``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.settings import REPOSITORY, TAG

if TYPE_CHECKING:
    from moorage.settings import Settings

HUB = "docker.io"
_MOST_NAME = 255
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::(?P<port>[0-9]+))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PORTS = range(1, 65536)


@dataclass(frozen=True)
class Reference:
    """An image in a registry, whole: ``tag``, ``digest`` or both are known."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        return self.digest or self.tag

    @property
    def pinned(self) -> str:
        """The reference as programs take it: by digest if there is one, else by tag."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{'@' if self.digest else ''}{self.digest}"


def parse(text: str, *, place: str = "", home: str = HUB) -> Reference:
    """``text`` taken apart. ``place`` says where it stands, for the error.

    ``home``: the registry of a name that has none. Raises Refused (``bad-reference``).
    """
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    registry, repository = _split(f"{head}{slash}{last}", home)
    why = (
        _outer(text)
        or _registry(registry)
        or _repository(registry, repository)
        or (colon and _tag(tag))
        or (at and _digest(digest))
    )
    if why:
        raise _bad(text, why, place)
    return Reference(registry, repository, tag if tag or at else "latest", digest)


def landing(settings: Settings, one: Reference) -> Reference:
    """Where an image lands in our registry: ``docker.io/library/nginx:1`` becomes
    ``my.registry.io/docker.io/library/nginx:1``; one of ours stays where it is.

    Two registries never meet: the name of each is a part of the path, and a port's colon becomes
    ``_``, which no host name has. Raises Refused (``bad-reference``) for a path that is too long.
    """
    if one.registry == settings.registry_name:
        return one
    path = f"{below(settings.nodes.mirror_path, one.registry)}/{one.repository}".lstrip("/")
    landed = replace(one, registry=settings.registry_name, repository=path)
    if len(landed.name) > _MOST_NAME:
        why = f"it would land as {landed.name}, and a name has at most {_MOST_NAME} characters"
        raise _bad(str(one), why, "")
    return landed


def below(form: str, registry: str) -> str:
    """The path in our registry below which a registry's images lie, by ``nodes.mirror_path``."""
    return form.replace("{registry}", registry.lower().replace(":", "_"))


def _split(name: str, home: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not (slash and is_host):
        return home, f"library/{name}" if home == HUB and not slash else name
    registry = HUB if first == f"index.{HUB}" else first
    return registry, f"library/{rest}" if registry == HUB and "/" not in rest else rest


def _outer(text: str) -> str:
    if not text:
        return "it is empty"
    if any(mark.isspace() or not mark.isprintable() for mark in text):
        return "it has a space or a control character"
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return "it is an image's id, not a name"
    return "it has a scheme; a reference has none" if "://" in text else ""


def _registry(registry: str) -> str:
    found = _DOMAIN.fullmatch(registry)
    if found is None:
        return f"{registry!r} is not the name of a registry"
    port = found["port"]
    return f"{port} is not a port" if port and int(port[:6]) not in _PORTS else ""


def _repository(registry: str, repository: str) -> str:
    if repository != repository.lower():
        return f"the repository {repository!r} has an upper-case letter"
    if not REPOSITORY.fullmatch(repository):
        return f"{repository!r} is not the name of a repository"
    long = len(f"{registry}/{repository}") > _MOST_NAME
    return f"its name has more than {_MOST_NAME} characters" if long else ""


def _tag(tag: str) -> str:
    return "" if TAG.fullmatch(tag) else f"{tag!r} is not a tag"


def _digest(digest: str) -> str:
    return "" if _DIGEST.fullmatch(digest) else f"{digest!r} is not a digest, sha256:<64 digits>"


def _bad(text: str, why: str, place: str) -> Refused:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return Refused(
        "bad-reference",
        f"{place}{': ' if place else ''}{shown!r} is not a reference of an image",
        cause=why,
        cure="write it as registry.io/path/name:tag or registry.io/path/name@sha256:...",
    )
