"""Caches of other registries, as containers: made, made right, taken away (docs/registry.md)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from moorage.actions import Action
from moorage.files import content_of, private_folder, remove_folder, write_atomically
from moorage.redaction import HIDDEN, redacted
from moorage.registry import container, service, spec
from moorage.registry.caches import upstreams
from moorage.registry.front.configuration import CONFIG, Cached, haproxy_cfg
from moorage.registry.logins.credentials import ensure_http_secret, folder

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.registry.caches.upstreams import Upstream
    from moorage.settings import Settings
    from moorage.ui import UI

# As Go looks for them: https://go.dev/src/crypto/x509/root_linux.go
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----")


class _Owned(NamedTuple):
    """As whom containers run: their user, and the owner that their files need, if not ourselves."""

    user: str
    owner: tuple[int, int] | None


def name(settings: Settings, one: Upstream) -> str:
    """The name of a cache's container."""
    return f"{settings.registry.container}-cache-{one.file}"


def names(settings: Settings) -> tuple[str, ...]:
    """The names of the containers of all caches."""
    return tuple(name(settings, one) for one in upstreams.read(settings))


def files(settings: Settings, one: Upstream) -> dict[str, bytes]:
    """The files of a cache's container. The one with the upstream's login is a secret."""
    return _files(one, ensure_http_secret(settings))


def _files(one: Upstream, http_secret: str) -> dict[str, bytes]:
    sockets = Cached(one.name, one.file, "").sockets
    return spec.cache_files(one.url, one.login, authorities(one), sockets, http_secret)


def authorities(one: Upstream) -> str:
    """The CAs by which an upstream is trusted, in PEM: this machine's, and the one that was given.

    A machine behind a firewall that signs certificates anew has that firewall's among them.
    """
    bundle = next((path for path in map(Path, _BUNDLES) if path.exists()), None)
    own = "" if bundle is None else bundle.read_text(encoding="utf-8", errors="replace")
    # Without the comments between them, which may be in any language; ssl takes ASCII alone.
    return "".join(f"{pem}\n" for pem in _CERTIFICATE.findall(f"{own}\n{one.ca}"))


def wanted(settings: Settings, one: Upstream, image: tuple[str, str], user: str) -> spec.Spec:
    """What a cache's container should be."""
    options = spec.cache_options(
        name=name(settings, one),
        user=user,
        etc=upstreams.etc(settings, one),
        data=upstreams.store(settings, one),
        run=service.run(settings),
    )
    return spec.Spec(image=image[0], image_id=image[1], options=options, files=files(settings, one))


def stand(settings: Settings, client: DockerClient, image: tuple[str, str], user: str) -> bool:
    """Whether every cache runs as it should. Raises Refused for what cannot be read."""
    for one in upstreams.read(settings):
        found = container.find(settings, client, name(settings, one))
        if found is None or found.status not in ("running", "restarting"):
            return False
        if not container.is_current(found, wanted(settings, one, image, user)):
            return False
    return True


def bring_up(
    settings: Settings,
    client: DockerClient,
    ui: UI,
    image: tuple[str, str],
    user: str,
    owner: tuple[int, int] | None,
) -> bool:
    """Makes every cache run as it should; whether one was changed. Raises Refused, MoorageError."""
    each = upstreams.read(settings)
    if each:
        private_folder(service.run(settings), owner=owner)
        private_folder(folder(settings) / "caches-etc")
        private_folder(upstreams.stores(settings))
    done = [_up(settings, client, ui, one, image, _Owned(user, owner)) for one in each]
    return any(done)


def put_in_force(settings: Settings, client: DockerClient, ui: UI) -> bool:
    """The caches as they are kept, while the registry serves; whether something was changed.

    Raises Refused or MoorageError.
    """
    from moorage.registry import image

    user, owner = container.user(client)
    changed = bring_up(
        settings, client, ui, image.ensure(settings, client, ui.progress), user, owner
    )
    front = image.ensure(settings, client, ui.progress, image.FRONT)
    return bool(service.put(settings, client, front[0], user, owner)) or changed


def take_away(settings: Settings, client: DockerClient | None, ui: UI, one: Upstream) -> None:
    """Removes a cache with all that it holds. It may be done again after it was killed.

    ``client`` None: no engine answers, so no container of it runs. Raises Refused, MoorageError.
    """
    if client is not None:
        found = container.find(settings, client, name(settings, one))
        if found is not None:
            with ui.progress(f"stopping {found.name}, once running downloads have ended"):
                container.remove(found)
            ui.note(f"removed the container {found.name}")
    remove_folder(upstreams.store(settings, one))
    remove_folder(upstreams.etc(settings, one))
    upstreams.forget(settings, one)


def planned(
    settings: Settings, before: tuple[Upstream, ...], after: tuple[Upstream, ...]
) -> list[Action]:
    """What it takes to come from one list of caches to another, with the files that it changes.

    Nothing of a login or another secret is in it, and none is made for it.
    """
    known = {one.name: one for one in before}
    left = {one.name for one in after}
    actions = []
    for one in after:
        earlier = known.get(one.name)
        if earlier != one:
            verb = "make" if earlier is None else "make again"
            text = f"{verb} the container {name(settings, one)}, a cache of {one.url}"
            actions.append(_of_file(settings, earlier, one, text))
    actions += [
        Action(f"remove the container {name(settings, one)}, and delete what it holds")
        for one in before
        if one.name not in left
    ]
    if actions:
        actions.append(_of_front(settings, before, after))
    return actions


def _up(
    settings: Settings,
    client: DockerClient,
    ui: UI,
    one: Upstream,
    image: tuple[str, str],
    owned: _Owned,
) -> bool:
    etc = private_folder(upstreams.etc(settings, one), owner=owned.owner)
    ui.present(container.give(upstreams.store(settings, one), owned.owner))
    should = wanted(settings, one, image, owned.user)
    rewritten = [name for name, text in should.files.items() if content_of(etc / name) != text]
    for file in rewritten:
        write_atomically(etc / file, should.files[file], owner=owned.owner)
    return container.bring_up(settings, client, ui, should, rewritten)


def _of_file(settings: Settings, earlier: Upstream | None, one: Upstream, text: str) -> Action:
    path = upstreams.etc(settings, one) / spec.PROXY
    before = None if earlier is None else _shown(_files(earlier, HIDDEN)[spec.PROXY])
    return Action(
        text, path=str(path), before=before, after=_shown(_files(one, HIDDEN)[spec.PROXY])
    )


def _of_front(
    settings: Settings, before: tuple[Upstream, ...], after: tuple[Upstream, ...]
) -> Action:
    texts = [
        _shown(haproxy_cfg(spec.front_places(), HIDDEN, caches=upstreams.cached(settings, each)))
        for each in (before, after)
    ]
    text = f"have {container.front_name(settings)} send pulls to these caches"
    return Action(text, path=str(service.etc(settings) / CONFIG), before=texts[0], after=texts[1])


def _shown(content: bytes) -> str:
    return redacted(content.decode())
