"""Whether an upstream answers a cache, and takes its login: asked as the cache itself would."""

from __future__ import annotations

import http.client
import ssl
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from moorage.errors import MoorageError
from moorage.registry import caching
from moorage.registry.logins import tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moorage.registry.caches.upstreams import Upstream
    from moorage.settings import Settings

ANSWERS, AWAY, LIMITS, UNTRUSTED, REFUSES = "answers", "away", "limits", "untrusted", "refuses"
_SECONDS = 5.0
_TOO_MANY = 429  # RFC 6585, section 4


class Answering(NamedTuple):
    """How an upstream stands: ``state`` is one of the words above; ``why`` its words, or ours."""

    state: str
    why: str = ""
    cure: str = ""


def ask_all(settings: Settings, each: Sequence[Upstream]) -> dict[str, Answering]:
    """All of them at once, by name; takes as long as the slowest, 5 s for each request at most."""
    with ThreadPoolExecutor(max(1, len(each))) as pool:
        found = pool.map(lambda one: ask(settings, one), each)
        return {one.name: answering for one, answering in zip(each, found, strict=True)}


def ask(settings: Settings, one: Upstream) -> Answering:
    """One upstream; whatever is wrong with it is the answer."""
    context = ssl.create_default_context()
    if authorities := caching.authorities(one):
        context.load_verify_locations(cadata=authorities)
    headers = _basic(one)
    try:
        status, wanted = _once(one, context, headers)
        challenge = tokens.challenge(wanted)
        if status == http.HTTPStatus.UNAUTHORIZED and challenge is not None:
            asked = _elsewhere(settings, one)
            token = tokens.fetch(asked, challenge, headers, context, _SECONDS)
            if token is None:
                return _refuses(one)
            status, _ = _once(one, context, {"Authorization": f"Bearer {token}"})
    except ssl.SSLCertVerificationError as problem:
        cure = f"inv registry.cache {one.name} --ca=FILE, with the CA that signed its certificate"
        return Answering(UNTRUSTED, problem.verify_message or str(problem), cure)
    except MoorageError as problem:
        return Answering(AWAY, f"{problem.message}: {problem.cause}", problem.cure)
    except (OSError, http.client.HTTPException) as problem:
        why = getattr(problem, "strerror", "") or str(problem) or type(problem).__name__
        return Answering(AWAY, why, f"curl -v {one.url}/v2/ shows what is in the way")
    return _judged(one, status)


def _judged(one: Upstream, status: int) -> Answering:
    if status == http.HTTPStatus.OK:
        return Answering(ANSWERS)
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return _refuses(one)
    if status == _TOO_MANY:
        cure = "wait" if one.login else f"wait; a login is given more: {_login(one)}"
        return Answering(LIMITS, "it answers 429: too many requests", cure)
    return Answering(AWAY, f"it answers {status}", f"curl -v {one.url}/v2/ shows who answers")


def _refuses(one: Upstream) -> Answering:
    why = "it wants a login" if one.login is None else f"it refuses the login of {one.login.user}"
    return Answering(REFUSES, why, _login(one))


def _login(one: Upstream) -> str:
    return f"inv registry.cache {one.name} --login=FILE, with one line user:password"


def _once(one: Upstream, context: ssl.SSLContext, headers: Mapping[str, str]) -> tuple[int, str]:
    """(status, what the upstream wants of whoever asks). Raises OSError, HTTPException."""
    place = urlsplit(one.url)
    line = http.client.HTTPSConnection(
        str(place.hostname), place.port or 443, timeout=_SECONDS, context=context
    )
    try:
        line.request("GET", "/v2/", headers=dict(headers))
        answer = line.getresponse()
        return answer.status, answer.headers.get("WWW-Authenticate", "")
    finally:
        line.close()


def _basic(one: Upstream) -> dict[str, str]:
    if one.login is None:
        return {}
    word = b64encode(f"{one.login.user}:{one.login.password}".encode()).decode()
    return {"Authorization": f"Basic {word}"}


def _elsewhere(settings: Settings, one: Upstream) -> Settings:
    """Settings under which messages name the upstream."""
    place = urlsplit(one.url)
    host, port = str(place.hostname), place.port or 443
    registry = replace(settings.registry, host=host, port=port, external=True)
    return replace(settings, registry=registry)
