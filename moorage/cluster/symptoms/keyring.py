"""The kubelet's choice among the logins of a Secret: which keys serve an image. Pure.

Held to the letter, oddities included: a login that the kubelet passes over does not pull, however
right it looks. The source is Kubernetes 1.36: pkg/credentialprovider/keyring.go (Add, Lookup,
URLsMatch) and pkg/util/parsers/parsers.go (ParseImageName).
https://github.com/kubernetes/kubernetes/blob/v1.36.2/pkg/credentialprovider/keyring.go
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import unquote

from moorage import references
from moorage.references import HUB, HUB_HOST

# What `kubectl create secret docker-registry` writes where no server is given.
HUB_KEY = "https://index.docker.io/v1/"

# Go's net/url refuses any other ASCII character in a host (shouldEscape, encodeHost).
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:\[\]<>\"\-\u0080-\U0010ffff]*")
_USER = re.compile(r"[A-Za-z0-9._:~!$&'()*+,;=%@\-]*")


def repository(image: str) -> str:
    """The name that the kubelet looks a login up by: normalized, without tag and digest.

    ``busybox:1`` -> ``docker.io/library/busybox``.
    """
    return "/".join(references.home_of(image))


def serving(keys: Iterable[str], image: str) -> list[str]:
    """The keys whose logins the kubelet tries for ``image``, in its order; [] if none does.

    The key for Docker Hub counts for the Hub's images, and for ``localhost``, if no other key does.
    """
    name = repository(image)
    places = {key: place for key in keys if (place := _place(key)) is not None}
    found = [key for key, place in places.items() if _matches(place, name)]
    if not found and _is_default(name.partition("/")[0]):
        found = [key for key, place in places.items() if place == HUB_HOST]
    return sorted(found, key=lambda key: places[key], reverse=True)


def in_full(image: str) -> str:
    """The name as runtimes list it: ``busybox`` -> ``docker.io/library/busybox:latest``."""
    _, tag, digest = references.split(image)
    version = f"@{digest}" if digest else f":{tag or 'latest'}"
    return f"{repository(image)}{version}"


def serves(key: str, image: str) -> bool:
    """Whether the kubelet would use the login under ``key`` alone to pull ``image``."""
    return bool(serving([key], image))


def mismatch(key: str, image: str) -> str:
    """Why the kubelet passes a key over for ``image``, if it looks as if it fitted; "" if not."""
    place, target = _place(key), _parsed(repository(image))
    parsed = None if place is None else _parsed(place)
    if parsed is None or target is None:
        return "the kubelet cannot read it as an address"
    host, path = parsed
    if host == target[0]:
        return f"it is for images whose path begins with {path}"
    if host.removesuffix(":443") == target[0].removesuffix(":443"):
        return f"for the kubelet {host} and {target[0]} are two servers"
    return ""


def _is_default(first: str) -> bool:
    """As ``isDefaultRegistryMatch``, which takes ``localhost`` for a part of a Hub's name."""
    return first in (HUB, HUB_HOST) or not set(first) & set(".:")


def _place(key: str) -> str | None:
    """Host and path of a key as ``Add`` keeps them; None for one that it passes over."""
    parsed = _parsed(key.removeprefix("https://").removeprefix("http://"))
    if parsed is None:
        return None
    host, path = parsed
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return host + (path if path != "/" else "")


def _matches(place: str, name: str) -> bool:
    glob, target = _parsed(place), _parsed(name)
    if glob is None or target is None or not target[1].startswith(glob[1]):
        return False
    (pattern, port), (host, wanted) = _split_port(glob[0]), _split_port(target[0])
    parts, given = pattern.split("."), host.split(".")
    if port != wanted or len(parts) != len(given):
        return False
    return all(_glob(one, other) for one, other in zip(parts, given, strict=True))


def _parsed(url: str) -> tuple[str, str] | None:
    """Host and path of a URL without its scheme, as Go's ``url.Parse`` reads it; None: an error."""
    if any(ord(character) < 0x20 or character == "\x7f" for character in url):
        return None
    address = url.partition("#")[0].partition("?")[0]
    authority, slash, path = address.partition("/")
    user, at, host = authority.rpartition("@")
    path = slash + path
    if (at and not _escaped(user)) or not _USER.fullmatch(user) or not _escaped(path):
        return None
    return (host, unquote(path)) if _is_host(host) else None


def _escaped(text: str) -> bool:
    """Whether every per cent sign begins an escape."""
    return not re.search(r"%(?![0-9A-Fa-f]{2})", text)


def _is_host(host: str) -> bool:
    """Whether Go's ``parseHost`` takes it: brackets hold an IPv6 address, a port is digits."""
    if not _HOST.fullmatch(host) or host.find("[") > 0:
        return False
    if not host.startswith("["):
        return re.fullmatch(r"[^:]*(:[0-9]*)?", host) is not None
    address, bracket, port = host[1:].rpartition("]")
    if not bracket or not re.fullmatch(r"(:[0-9]*)?", port):
        return False
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _split_port(host: str) -> tuple[str, str]:
    """As Go's ``net.SplitHostPort``; a host without a port keeps its brackets."""
    found = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^\[\]:]*)):([^\[\]:]*)", host)
    if found is None:
        return host, ""
    return found[1] if found[1] is not None else found[2], found[3]


def _glob(pattern: str, text: str) -> bool:
    """As Go's ``filepath.Match`` for what a host may hold: ``*``, and the brackets of an IPv6."""
    if "[" in pattern:
        # A class of characters, one of which stands for itself: never a whole address.
        return False
    wanted = "".join("[^/]*" if one == "*" else re.escape(one) for one in pattern)
    return re.fullmatch(wanted, text, re.DOTALL) is not None
