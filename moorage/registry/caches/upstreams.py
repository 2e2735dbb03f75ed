"""The upstreams that have a cache here: kept in files that only the operator can read.

``.moorage/registry/caches/NAME/`` has ``upstream.json``, and if they were given the ``login`` for
the upstream (0600) and the CA of its certificate. All of it is small and is backed up; what the
caches hold lies beside the registry's data and is not.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.wire.plan import Mirror
from moorage import references
from moorage.errors import SPOILT, Refused, spoilt
from moorage.files import private_folder, remove_folder, write_atomically
from moorage.redaction import keep_secret
from moorage.registry.front.configuration import Cached
from moorage.registry.logins.credentials import Credentials

if TYPE_CHECKING:
    from moorage.settings import Settings

_MOST = 64  # characters: a name is a part of a socket's path, which has 107 bytes (unix(7))


@dataclass(frozen=True)
class Upstream:
    """A registry whose images are pulled through: ``name`` as image names spell it.

    ``open``: everybody may read the cache. ``ca``: the CA of the upstream's certificate, in PEM;
    "" for those that this machine trusts.
    """

    name: str
    open: bool = False
    login: Credentials | None = field(default=None, repr=False)
    ca: str = field(default="", repr=False)

    @property
    def file(self) -> str:
        """The name in the names of files and containers: without a colon."""
        return references.below("{registry}", self.name)

    @property
    def url(self) -> str:
        """Where the upstream answers."""
        return Mirror(self.name).upstream


def parse(settings: Settings, words: str) -> str:
    """The upstream's name. Raises Refused (``bad-upstream``) for what names no other registry."""
    name = references.HUB if words == references.HUB_HOST else words
    try:
        found = references.parse(f"{name}/a/b").registry
    except Refused as problem:
        raise _bad(words, problem.cause) from None
    if found != name or not references.is_registry(name) or name != name.lower():
        raise _bad(words, "a registry has a dot or a port in its name, and no upper-case letter")
    if len(name) > _MOST:
        raise _bad(words, f"it has more than {_MOST} characters")
    if name in (settings.registry_name, settings.registry.host):
        raise _bad(words, "it is this registry itself")
    return name


def read(settings: Settings) -> tuple[Upstream, ...]:
    """All of them, by name. Raises Refused (``caches-unreadable``)."""
    places = sorted(path.parent for path in folder(settings).glob("*/upstream.json"))
    return tuple(_read(settings, place) for place in places)


def keep(settings: Settings, one: Upstream) -> None:
    """Writes what is to be remembered of an upstream; a login or CA that is none is taken away."""
    place = folder(settings) / one.file
    for parent in (place.parent.parent, place.parent, place):
        private_folder(parent)
    login = f"{one.login.user}:{one.login.password}\n" if one.login else ""
    for name, text in (("login", login), ("ca.crt", one.ca)):
        if text:
            write_atomically(place / name, text.encode())
        else:
            (place / name).unlink(missing_ok=True)
    # The last one: from then on there is such a cache.
    text = json.dumps({"name": one.name, "open": one.open}, indent=1)
    write_atomically(place / "upstream.json", f"{text}\n".encode())


def forget(settings: Settings, one: Upstream) -> None:
    """Takes away what is remembered of an upstream, its login too."""
    place = folder(settings) / one.file
    (place / "upstream.json").unlink(missing_ok=True)
    remove_folder(place)


def folder(settings: Settings) -> Path:
    """What is remembered of all upstreams."""
    return settings.state / "registry" / "caches"


def etc(settings: Settings, one: Upstream) -> Path:
    """The files of a cache's container, made from the rest."""
    return settings.state / "registry" / "caches-etc" / one.file


def stores(settings: Settings) -> Path:
    """What all caches hold: beside the registry's own data, and never in it."""
    return settings.registry_data.with_name(f"{settings.registry_data.name}-caches")


def store(settings: Settings, one: Upstream) -> Path:
    """What one cache holds, as a Distribution's data."""
    return stores(settings) / one.file


def path(settings: Settings, one: Upstream) -> str:
    """Below which path of our registry its images are asked for; nodes ask there.

    Without ``{registry}`` in ``nodes.mirror_path`` nodes name an upstream by ``ns`` alone.
    """
    form = settings.nodes.mirror_path
    return references.below(form if "{registry}" in form else "{registry}", one.name)


def cached(settings: Settings, each: Iterable[Upstream]) -> tuple[Cached, ...]:
    """Caches as the front finds them."""
    return tuple(Cached(one.name, one.file, path(settings, one), one.open) for one in each)


def of_registry(settings: Settings, name: str) -> Upstream | None:
    """The upstream of that name, if it has a cache."""
    return next((one for one in read(settings) if one.name == name), None)


def _read(settings: Settings, place: Path) -> Upstream:
    try:
        document: Any = json.loads((place / "upstream.json").read_bytes())
        name, open_ = document["name"], document["open"]
        if not isinstance(name, str) or not isinstance(open_, bool):
            raise TypeError("a field is of another type")
        login = _text(place / "login").removesuffix("\n")
        user, _, password = login.partition(":")
        given = Credentials(user, keep_secret(password)) if login else None
        return Upstream(parse(settings, name), open_, given, _text(place / "ca.crt"))
    except (*SPOILT, Refused) as problem:
        cure = f"take it away and add the cache again: rm -r {shlex.quote(str(place))}"
        raise spoilt("caches-unreadable", place, problem, cure) from None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _bad(words: str, why: str) -> Refused:
    shown = re.sub(r"[^\x21-\x7e]", "?", words[:80])
    return Refused(
        "bad-upstream",
        f"{shown!r} is not a registry that can have a cache here",
        cause=why,
        cure="name it as image names do: inv registry.cache docker.io quay.io",
    )
