"""The front shows the CA to come to whoever is sent to prove it, and to nobody else.

A client that names no server in its handshake gets the other certificate. No client of a registry
does that by itself, for its name is no address. The login that proves a CA is sent on (307) to the
registry's address, for which no client names a server (RFC 6066, section 3). Thus the node's own
runtime makes two handshakes in one pull, by the files that it has for the registry's name: one
under each CA. Nothing is changed on the node for it, and no other port has to be open.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from moorage.errors import MoorageError, Refused
from moorage.pki import chain, succession
from moorage.redaction import keep_secret
from moorage.registry import client as https
from moorage.registry import service
from moorage.registry.front import roles
from moorage.registry.front.configuration import PROVING
from moorage.registry.logins import users
from moorage.rotation import addresses

if TYPE_CHECKING:
    from moorage.settings import Settings

# Longer than a rollout takes; a login that a killed run has left behind ends by itself.
_LOGIN_SECONDS = 6 * 3600
_ANSWER_SECONDS = 10


@contextlib.contextmanager
def shown(settings: Settings) -> Iterator[str]:
    """Shows it for the length of a block, which gets the password of the login.

    Raises Refused or MoorageError if the front does not take the certificate, or the login.
    """
    require_front(settings)
    pair = succession.pair_to_prove(settings, addresses.of_registry(settings))
    succession.set_to_prove(settings, pair)
    try:
        service.put_nameless(settings)
        _look(settings)
        yield _let_in(settings)
    finally:
        end(settings)


def end(settings: Settings) -> None:
    """Shows it no more, and ends the login; after a run that was killed, too."""
    users.remove(settings, PROVING)
    if succession.under_way(settings):
        succession.set_to_prove(settings, None)
    with contextlib.suppress(MoorageError):  # a front that is down reads the files at its start
        service.put_logins(settings)
        service.put_nameless(settings)


def require_front(settings: Settings) -> None:
    """Raises Refused or MoorageError unless a front serves here that can show two certificates."""
    service.require_running(settings)
    if not service.knows_two_pairs(settings):
        raise Refused(
            "front-outdated",
            "the registry's front is of an earlier Moorage, and can show one certificate only",
            cause="a new CA is proved beside the old one, before it is served",
            cure="inv registry.up, which does not end a download; then this again",
        )


def _let_in(settings: Settings) -> str:
    users.remove(settings, PROVING)
    password = users.add(
        settings,
        roles.User(
            PROVING,
            "pull",
            (settings.image.name,),
            int(time.time()) + _LOGIN_SECONDS,
            purpose="rotation",
        ),
    )
    # The ticket of the second request (haproxy.cfg.in) stands in what runtimes say of a failure.
    keep_secret(roles.proof(users.ensure_key(settings), keep_secret(password)))
    service.put_logins(settings)
    return password


def _look(settings: Settings) -> None:
    """A handshake that names no server, under the new CA alone."""
    context = chain.client_context(succession.pem(settings))
    context.check_hostname = False
    try:
        with (
            socket.create_connection(https.place(settings), _ANSWER_SECONDS) as raw,
            context.wrap_socket(raw),
        ):
            return
    except OSError as problem:
        raise MoorageError(
            "certificate-not-served",
            "the front does not show the certificate that proves the new CA",
            cause=str(problem) or type(problem).__name__,
            cure="inv registry.up, then inv certs.rotate-ca --resume",
        ) from None
