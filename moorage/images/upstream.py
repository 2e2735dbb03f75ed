"""What other registries have of the images that are asked for: the digest each shall come by.

Asked by a HEAD request where that is enough, else by skopeo. Nothing is copied here.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage import platforms
from moorage.errors import MoorageError, Refused
from moorage.images import asking, skopeo
from moorage.images.asking import Asker, Login
from moorage.images.skopeo import SkopeoAccess
from moorage.references import Reference

_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?")


@dataclass(frozen=True)
class OwnRegistry:
    """A registry that is asked as well, with its login, its CA files and what it is shown: ours.

    ``present``: what a registry's connections show it, put into their context; ``names``: further
    hosts that are shown it.
    """

    logins: Mapping[str, Login]
    authorities: Callable[[str], tuple[str, ...]]
    present: Callable[[str, ssl.SSLContext], None] = asking.nothing
    names: tuple[str, ...] = ()


def platform(text: str) -> str:
    """Raises Refused (``wrong-use``) unless ``text`` is OS/ARCH or OS/ARCH/VARIANT, or empty."""
    if text and not _PLATFORM.fullmatch(text):
        raise Refused(
            "wrong-use",
            f"invalid --platform={text}: not OS/ARCH or OS/ARCH/VARIANT",
            cause="one platform is meant, such as linux/arm64",
            cure="leave it out for all platforms of each image",
        )
    return text


def moved(image: Reference, what: str, where: str) -> MoorageError:
    """The refusal of a tag that names another image at its registry by now.

    ``what``: the image that it named before, in words; ``where``: both digests, in words.
    """
    return MoorageError(
        "tag-moved",
        f"{image} is another image than the one that {what}",
        cause=where,
        cure="--update takes the new one; by digest in the list it stays what it is",
    )


class Upstreams:
    """The registries of ``images``; threads share it. ``platform``: that one alone, or ""."""

    def __init__(
        self,
        images: Iterable[Reference],
        allowed: SkopeoAccess,
        platform: str,
        at_once: int,
        own: OwnRegistry | None = None,
    ) -> None:
        own = own or OwnRegistry({}, asking.authorities)
        self._allowed, self._platform = allowed, platform
        logins: dict[str, Login] = {**asking.logins(allowed.sources), **own.logins}
        self.asker = Asker(logins, own.authorities, at_once, own.present, own.names)
        registries = {image.registry for image in images}
        self._redirected = {one: asking.is_redirected(one) for one in registries}

    def wanted(self, image: Reference) -> str:
        """The digest of the whole image, or of its one platform. Raises MoorageError."""
        if not self._platform:
            return image.digest or self._asked(image) or skopeo.digest_of(self._manifest(image))
        return self._of_platform(image, self._manifest(image))

    def _asked(self, image: Reference) -> str:
        return "" if self._redirected[image.registry] else self.asker.digest(image)

    def _manifest(self, image: Reference) -> bytes:
        content = b"" if self._redirected[image.registry] else self.asker.manifest(image)
        if content and (not image.digest or skopeo.digest_of(content) == image.digest):
            return content
        return skopeo.manifest(image, self._allowed)

    def _of_platform(self, image: Reference, content: bytes) -> str:
        document = _parsed(image, content)
        rows = document.get("manifests")
        if isinstance(rows, list):
            digest = choose(rows, self._platform)
            if not digest:
                raise _no_platform(image, self._platform, offered(rows))
            return digest
        said = _parsed(image, skopeo.manifest(image, self._allowed, config=True))
        only = _name({"platform": said})
        # Builders often leave the variant out of an image's own configuration.
        alike = only == "/".join(platforms.known(self._platform).split("/")[:2])
        if not alike and platforms.known(only) not in platforms.runnable(self._platform):
            raise _no_platform(image, self._platform, [only] if only else [])
        return skopeo.digest_of(content)


def choose(rows: Sequence[Any], wanted: str) -> str:
    """The digest of what a machine of the platform runs, of an index's rows; "" if none. Pure.

    Of several the best one, wherever it stands: linux/amd64 is what every amd64 runs, not amd64/v3.
    """
    there: dict[str, str] = {}
    for row in rows:
        if isinstance(row, dict):
            there.setdefault(platforms.known(_name(row)), str(row.get("digest", "")))
    return next((there[name] for name in platforms.runnable(wanted) if name in there), "")


def offered(rows: Sequence[Any]) -> list[str]:
    """The platforms of an index, those of attestations left out. Pure."""
    names = (_name(row) for row in rows if isinstance(row, dict))
    return [name for name in dict.fromkeys(names) if name and "unknown" not in name]


def _name(row: dict[str, Any]) -> str:
    said = row.get("platform")
    if not isinstance(said, dict):
        return ""
    words = (said.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(str(word) for word in words if word)


def _parsed(image: Reference, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # RecursionError: nested deeper than it can be read
        found = None
    if isinstance(found, dict):
        return found
    raise MoorageError(
        "copy-failed",
        f"asking for {image} failed",
        cause=f"{image.registry} sent something else than a manifest",
        cure=f"curl -v https://{image.registry}/v2/ shows who answers",
    )


def _no_platform(image: Reference, wanted: str, there: Sequence[str]) -> MoorageError:
    return MoorageError(
        "wrong-platform",
        f"{image} is not made for {wanted}",
        cause=f"it is there for {', '.join(there) or 'no platform that it names'}",
        cure="name one of those, leave --platform out, or leave the image out of the list",
    )
