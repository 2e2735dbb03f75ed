"""The ways to be wrong that runtimes are heard about: a row each. How they end is in the test."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import parse_qs

from tests.agent.words.hostile import (
    LOGIN,
    MIRROR,
    REGISTRY,
    STORE,
    TOKENS,
    Answer,
    Handler,
    Request,
    image,
    page,
    said,
    schema1,
    tar,
)

CONTAINERD, DOCKER, PODMAN = "containerd", "docker", "podman"
EVERY = (CONTAINERD, DOCKER, PODMAN)


class Situation(NamedTuple):
    """``certificate``: what the registry presents. ``files``: of the node's folder for it, where
    ``@CA``, ``@EVIL`` and ``@LEAF`` stand for the certificates of those names, ``@PORT`` for the
    port. ``mirror``: whether a host is to be asked before it, whose CA nobody has.
    """

    name: str
    handler: Handler
    login: tuple[str, str] | None = None
    certificate: str = "good"
    files: tuple[tuple[str, str], ...] = (("ca.crt", "@CA"),)
    runtimes: tuple[str, ...] = EVERY
    mirror: bool = False
    sandbox: bool = False


def _basic(login: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


def tokens(issued: Callable[[Request], Answer], refused: Answer) -> Handler:
    """A registry that sends its clients to a token server, and then refuses what that gave them."""

    def answer(request: Request) -> Answer:
        if request.site.startswith(TOKENS):
            return issued(request)
        realm = f'Bearer realm="https://{TOKENS}:{request.port}/token",service="{REGISTRY}"'
        if request.path != "/v2/":
            realm += ',scope="repository:app:pull"'
        if not request.authorization.startswith("Bearer "):
            challenge = ("WWW-Authenticate", realm)
            return said(401, "UNAUTHORIZED", "authentication required", challenge)
        if request.path == "/v2/":
            return Answer(200, b"{}")
        headers = dict(refused.headers)
        if refused.status == 401:
            headers["WWW-Authenticate"] = f'{realm},error="insufficient_scope"'
        return refused._replace(headers=tuple(headers.items()))

    return answer


def token(request: Request) -> Answer:
    """Anyone gets one; what it is good for, the registry says."""
    body = b'{"token": "e30.e30.e30", "access_token": "e30.e30.e30"}'
    return Answer(200, body, (("Content-Type", "application/json"),))


def _only_known(refusal: Answer) -> Callable[[Request], Answer]:
    def issue(request: Request) -> Answer:
        fields = parse_qs(request.form)  # containerd's way; the others send a header
        posted = (fields.get("username"), fields.get("password"))
        known = request.authorization == _basic(LOGIN) or posted == ([LOGIN[0]], [LOGIN[1]])
        return token(request) if known else refusal

    return issue


_numbers = itertools.count()


def whole() -> Handler:
    """A registry with an image like no other."""
    return image(tar(f"moored-{next(_numbers)}")).serve


def _but(part: str, answer: Answer) -> Handler:
    """A whole registry but for what has ``part`` in its path."""
    served = whole()
    return lambda asked: answer if part in asked.path else served(asked)


def _manifests(answer: Answer) -> Handler:
    return _but("/manifests/", answer)


def _blobs(answer: Answer) -> Handler:
    return _but("/blobs/", answer)


def _elsewhere(place: str) -> Handler:
    """Blobs are in a store of their own, as with S3."""
    served = whole()

    def answer(asked: Request) -> Answer:
        if "/blobs/" not in asked.path or asked.site.startswith(STORE):
            return served(asked)
        return Answer(307, b"", (("Location", f"https://{place}:{asked.port}{asked.path}"),))

    return answer


HUB = said(401, "DENIED", "requested access to the resource is denied")
HARBOR = said(
    401, "UNAUTHORIZED", "unauthorized to access repository: app, action: pull: unauthorized to "
    "access repository: app, action: pull",
)  # fmt: skip
GITLAB = said(403, "DENIED", "access forbidden")
WRONG = Answer(
    401,
    b'{"details":"incorrect username or password"}\n',
    (("Content-Type", "application/json"),),
)
LIMIT = ("TOOMANYREQUESTS", "You have reached your pull rate limit.")
MIRRORED = (
    ("hosts.toml", f'server = "https://{REGISTRY}:@PORT"\nca = "@PLACE/ca.crt"\n'
     f'[host."https://{MIRROR}:@MIRROR"]\n'),
    ("ca.crt", "@CA"),
)  # fmt: skip
NOT_FOUND = said(404, "MANIFEST_UNKNOWN", "manifest unknown")
ARTIFACT = image(
    b"moored\n", config_kind="application/vnd.oci.empty.v1+json", layer_kind="text/plain"
)
BLOCKED = page(403, "Access blocked by policy")

SITUATIONS = (
    Situation("good", whole()),
    # A token server: without a login, with a wrong one, with one that may not have this image.
    Situation("token-hub-none", tokens(token, HUB)),
    Situation("token-hub-wrong", tokens(_only_known(WRONG), HUB), ("ship", "wrong")),
    Situation("token-hub-no-right", tokens(_only_known(WRONG), HUB), LOGIN),
    Situation("token-harbor-none", tokens(token, HARBOR)),
    Situation("token-harbor-wrong", tokens(_only_known(HARBOR), HARBOR), ("ship", "wrong")),
    Situation("token-gitlab-none", tokens(_only_known(GITLAB), GITLAB)),
    Situation("token-gitlab-wrong", tokens(_only_known(GITLAB), GITLAB), ("ship", "wrong")),
    Situation("token-untrusted", tokens(token, HUB), certificate="token-evil"),
    Situation("token-page", tokens(lambda asked: page(), HUB)),
    Situation("token-missing", tokens(lambda asked: page(404, "Not Found"), HUB)),
    Situation("token-busy", tokens(lambda asked: said(429, *LIMIT), HUB)),
    # Something that is no registry answers.
    Situation("page-everywhere", lambda asked: page()),
    Situation("page-as-manifest", _manifests(page())),
    Situation("page-as-blob", _blobs(page())),
    Situation("page-missing", lambda asked: page(404, "Not Found")),
    Situation("page-forbidden", lambda asked: BLOCKED),
    Situation("page-manifest-forbidden", _manifests(BLOCKED)),
    # A mirror whose CA the runtime does not have, before a registry without the image.
    Situation("mirror-untrusted-404", _manifests(NOT_FOUND), files=MIRRORED,
              runtimes=(CONTAINERD, PODMAN), mirror=True),
    Situation("missing", _manifests(NOT_FOUND)),
    # What no longer is, or never was, an image.
    Situation("schema1", schema1().serve),
    Situation("artifact", ARTIFACT.serve),
    Situation("blob-missing", _blobs(said(404, "BLOB_UNKNOWN", "blob unknown to registry"))),
    Situation("blob-forbidden", _blobs(said(403, "DENIED", "requested access is denied"))),
    Situation("manifest-invalid", _manifests(said(400, "MANIFEST_INVALID", "manifest invalid"))),
    Situation("unsupported", _manifests(said(405, "UNSUPPORTED", "operation is unsupported"))),
    Situation("broken", _manifests(said(500, "UNKNOWN", "unknown error"))),
    # Too much at once.
    Situation("busy", _manifests(said(429, *LIMIT))),
    Situation("busy-come-back", _manifests(said(429, *LIMIT, ("Retry-After", "1")))),
    Situation("busy-blobs", _blobs(said(429, *LIMIT))),
    # Blobs elsewhere.
    Situation("store-untrusted", _elsewhere(STORE), certificate="store-evil"),
    Situation("store-lost", _elsewhere("lost.invalid")),
    # Files of the folder that are in the way.
    Situation("ca-with-a-clients-ending", whole(), files=(("ca.cert", "@CA"),)),
    Situation("cert-without-key", whole(), files=(("ca.crt", "@CA"), ("client.cert", "@CA"))),
    Situation("key-without-cert", whole(), files=(("ca.crt", "@CA"), ("registry.key", "@KEY"))),
    Situation("key-of-another", whole(),
              files=(("ca.crt", "@CA"), ("client.cert", "@CA"), ("client.key", "@KEY"))),
    Situation("ca-damaged", whole(), files=(("ca.crt", "no certificate\n"),)),
    Situation("ca-empty", whole(), files=(("ca.crt", ""),)),
    Situation("ca-of-another", whole(), files=(("ca.crt", "@EVIL"),)),
    Situation("ca-is-a-folder", whole(), files=(("ca.crt/x", ""),)),
    # A server's certificate as its own CA.
    *(Situation(f"leaf-{kind}", whole(), certificate=f"leaf-{kind}",
                files=(("ca.crt", "@LEAF"),))
      for kind in ("good", "issued", "expired", "other-name", "no-san")),
    # The image of a pod's sandbox, which the runtime pulls itself.
    *(Situation(f"sandbox-{name}", handler, files=files, runtimes=(CONTAINERD,), sandbox=True)
      for name, handler, files in (
          ("untrusted", whole(), ()),
          ("login", tokens(_only_known(WRONG), HUB), (("ca.crt", "@CA"),)),
          ("missing", lambda asked: NOT_FOUND, (("ca.crt", "@CA"),)),
          ("page", _manifests(page()), (("ca.crt", "@CA"),)),
      )),
)  # fmt: skip
