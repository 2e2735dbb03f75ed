"""Image references: parsed strictly, taken apart as they are, and where each lands. Pure.

The grammar is that of https://github.com/distribution/reference; what it leaves unsaid is added as
Docker does it: ``nginx`` is ``docker.io/library/nginx:latest``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from moorage.errors import Refused
from moorage.settings import REPOSITORY, TAG

if TYPE_CHECKING:
    from moorage.settings import Settings

HUB = "docker.io"
# Docker Hub's name in logins; in a reference it means the same registry.
HUB_HOST = f"index.{HUB}"
_MOST_NAME = 255
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::(?P<port>[0-9]+))?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PORTS = range(1, 65536)


class Spelled(NamedTuple):
    """A reference as it is spelled; ``tag`` and ``digest`` are "" if they are not named."""

    name: str
    tag: str
    digest: str


class ImageHome(NamedTuple):
    """Where an image is, with what its name leaves unsaid."""

    registry: str
    repository: str


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


def split(reference: str) -> Spelled:
    """``my.registry.io:5000/a/b:1@sha256:…`` -> name, tag and digest; nothing is judged."""
    name, _, digest = reference.partition("@")
    head, colon, tag = name.rpartition(":")
    return Spelled(head, tag, digest) if colon and "/" not in tag else Spelled(name, "", digest)


def home_of(reference: str) -> ImageHome:
    """``busybox:1`` -> ``docker.io`` and ``library/busybox``; nothing is judged."""
    return _home(split(reference).name, HUB)


def is_registry(first: str) -> bool:
    """Whether what stands before the first slash of a name is a registry, not a folder."""
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def parse(text: str, *, place: str = "", home: str = HUB) -> Reference:
    """``text`` taken apart. ``place`` says where it stands, for the error.

    ``home``: the registry of a name that has none. Raises Refused (``bad-reference``).
    """
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    registry, repository = _home(f"{head}{slash}{last}", home)
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


def _home(name: str, home: str) -> ImageHome:
    first, slash, rest = name.partition("/")
    if not (slash and is_registry(first)):
        return ImageHome(home, f"library/{name}" if home == HUB and not slash else name)
    registry = HUB if first == HUB_HOST else first
    return ImageHome(registry, f"library/{rest}" if registry == HUB and "/" not in rest else rest)


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
    return "" if DIGEST.fullmatch(digest) else f"{digest!r} is not a digest, sha256:<64 digits>"


def _bad(text: str, why: str, place: str) -> Refused:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return Refused(
        "bad-reference",
        f"{place}{': ' if place else ''}{shown!r} is not a reference of an image",
        cause=why,
        cure="write it as registry.io/path/name:tag or registry.io/path/name@sha256:...",
    )
