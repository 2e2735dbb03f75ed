"""The front's files as they shall be, and put in force while it serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError, Refused
from moorage.files import content_of, private_folder, write_atomically
from moorage.redaction import keep_secret
from moorage.registry import container, spec
from moorage.registry.caches import upstreams
from moorage.registry.front import roles, runtime
from moorage.registry.front.configuration import (
    CONFIG,
    LOGINS,
    NAMELESS,
    PAIR,
    PAIRS,
    Cached,
    haproxy_cfg,
    pairs_list,
)
from moorage.registry.logins import users
from moorage.registry.logins.credentials import folder

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.settings import Settings

_CANDIDATE = f"{CONFIG}.new"
# Below certs/, while a CA is proved before it is served: a pair of it, as the front takes it.
TO_PROVE = "next/to-prove.pem"


def etc(settings: Settings) -> Path:
    """The folder of the front's files."""
    return folder(settings) / "front"


def run(settings: Settings) -> Path:
    """The folder of the sockets: the registry's own, and the front's for changes."""
    return folder(settings) / "run"


def files(settings: Settings) -> dict[str, bytes]:
    """What the front's files should be. Raises Refused without a login or a certificate."""
    caches = upstreams.cached(settings, upstreams.read(settings))
    return {
        CONFIG: configuration(settings, caches),
        LOGINS: roles.rows(users.everybody(settings)),
        PAIRS: pairs_list(spec.ETC),
        PAIR: pair(settings),
        NAMELESS: nameless(settings),
    }


def configuration(settings: Settings, caches: Sequence[Cached]) -> bytes:
    """HAProxy's, with these caches. The key in it is a secret, and kept out of texts."""
    key = keep_secret(roles.haproxy_key(users.ensure_key(settings)))
    return haproxy_cfg(spec.front_places(), key, caches=caches)


def pair(settings: Settings) -> bytes:
    """The certificate, what it was signed with, and its key. Raises Refused if none is there."""
    return b"".join(
        _issued(settings.certs_dir / name).rstrip() + b"\n"
        for name in ("registry.crt", "registry.key")
    )


def nameless(settings: Settings) -> bytes:
    """The pair for clients that name no server: one of the CA to come while that is proved, else
    the same as for all others."""
    return content_of(settings.certs_dir / TO_PROVE) or pair(settings)


def wanted(settings: Settings, image: tuple[str, str], user: str) -> spec.Spec:
    """What the front's container should be; its files do not count: they change while it runs."""
    options = spec.front_options(
        name=container.front_name(settings),
        user=user,
        etc=etc(settings),
        run=run(settings),
        listen=settings.registry.listen,
        port=settings.registry.port,
    )
    return spec.Spec(image=image[0], image_id=image[1], options=options, files={})


def changed(settings: Settings) -> tuple[str, ...]:
    """The names of the files that are not as they should be."""
    should = files(settings)
    return tuple(
        name for name, content in should.items() if content_of(etc(settings) / name) != content
    )


def put(
    settings: Settings, client: DockerClient, image: str, user: str, owner: tuple[int, int] | None
) -> tuple[str, ...]:
    """Puts the files in place and in force -> the names of those that were changed.

    Raises Refused or MoorageError; what HAProxy does not take is not put in place, and it goes on
    with what it has.
    """
    private_folder(etc(settings), owner=owner)
    private_folder(run(settings), owner=owner)
    should, names = files(settings), changed(settings)
    found = container.find_front(settings, client)
    serving = found is not None and found.status == "running" and runtime.answers(run(settings))
    # A front of an earlier Moorage reads the list of both with its new configuration.
    for name in (PAIR, NAMELESS) if knows_two_pairs(settings) else (PAIR,):
        if name in names and serving:
            runtime.replace_pair(run(settings), spec.ETC, should[name], name)
    for name in (LOGINS, PAIRS, PAIR, NAMELESS):
        if name in names:
            write_atomically(etc(settings) / name, should[name], owner=owner)
    if LOGINS in names and serving:
        runtime.replace_logins(run(settings), spec.ETC, should[LOGINS])
    if CONFIG in names or (names and not serving):
        candidate = etc(settings) / _CANDIDATE
        write_atomically(candidate, should[CONFIG], owner=owner)
        _check(client, image, user, etc(settings))
        candidate.replace(etc(settings) / CONFIG)
        if serving:
            found.kill(signal="SIGUSR2")  # type: ignore[union-attr]
    return names


def put_logins(settings: Settings) -> bool:
    """Puts the logins in force if there is a front: a login that is not among them is out at once.

    Returns whether a front serves them. Raises MoorageError if one is there and does not take them.
    """
    path = etc(settings) / LOGINS
    if not path.exists():
        return False
    status = path.stat()
    rows = roles.rows(users.everybody(settings))
    serving = runtime.answers(run(settings))
    if serving:
        runtime.replace_logins(run(settings), spec.ETC, rows)
    # The file comes last: it says what is in force, whenever this was killed.
    write_atomically(path, rows, owner=(status.st_uid, status.st_gid))
    return serving


def has_logins(settings: Settings) -> bool | None:
    """Whether the front has the logins as they are now; None if none was made here yet."""
    content = content_of(etc(settings) / LOGINS)
    return None if content is None else content == roles.rows(users.everybody(settings))


def require_running(settings: Settings) -> None:
    """Raises MoorageError (``front-silent``) if no front serves here."""
    if not (etc(settings) / PAIR).exists() or not runtime.answers(run(settings)):
        raise MoorageError(
            "front-silent",
            "the registry's front does not run, so no certificate can be exchanged in it",
            cause=f"nothing answers in {run(settings)}",
            cure="inv registry.up",
        )


def put_pair(settings: Settings) -> bool:
    """Serves what is in ``certs`` from the next handshake on, without a closed connection.

    Returns whether it is another pair than before. Raises Refused (``certificate-refused``).
    """
    require_running(settings)
    differs = _put_pair(settings, PAIR, pair(settings))
    put_nameless(settings)
    return differs


def knows_two_pairs(settings: Settings) -> bool:
    """Whether the front has a pair for clients that name no server."""
    return (etc(settings) / PAIRS).exists()


def put_nameless(settings: Settings) -> None:
    """Serves what clients that name no server shall get, if the front tells them apart.

    Raises Refused (``certificate-refused``) or MoorageError (``front-silent``).
    """
    require_running(settings)
    if knows_two_pairs(settings):
        _put_pair(settings, NAMELESS, nameless(settings))


def _put_pair(settings: Settings, name: str, content: bytes) -> bool:
    path = etc(settings) / name
    differs = path.read_bytes() != content
    runtime.replace_pair(run(settings), spec.ETC, content, name)
    status = path.stat()
    write_atomically(path, content, owner=(status.st_uid, status.st_gid))
    return differs


def _check(client: DockerClient, image: str, user: str, folder: Path) -> None:
    """Has HAProxy read the candidate. Raises MoorageError with its words."""
    from docker.errors import ContainerError

    try:
        client.containers.run(
            image,
            ["-c", "-f", f"{spec.ETC}/{_CANDIDATE}"],
            user=user,
            network_mode="none",
            volumes={str(folder): {"bind": spec.ETC, "mode": "ro,Z"}},
            remove=True,
            stderr=True,
        )
    except ContainerError as problem:
        words: Any = problem.stderr
        said = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
        raise MoorageError(
            "front-refuses",
            "the registry's front does not accept its configuration; the old one goes on",
            cause="\n".join(said.strip().splitlines()[-3:]),
            cure="inv registry.up",
        ) from None


def _issued(path: Path) -> bytes:
    content = content_of(path)
    if content is None:
        raise Refused(
            "no-certificates",
            f"there is no {path}",
            cause="the registry's certificate has not been issued yet",
            cure="inv certs.issue",
            path=str(path),
        )
    return content
