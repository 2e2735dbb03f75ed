"""Which digests registries have: asked by HEAD over connections that stay open. No image is moved.

An answer saves skopeo a process and a dozen requests; where none comes (another form of login, a
registry without TLS, an unusual proxy), "" is returned and skopeo is asked in its place.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import ssl
import threading
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.files import user_home
from moorage.references import HUB, Reference
from moorage.registry.client import MANIFEST_TYPES, MOST_REDIRECTS, basic, onward
from moorage.registry.logins import tokens
from moorage.registry.logins.credentials import Credentials

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_log = logging.getLogger("moorage.registry")
_CONNECT, _ANSWER = 5.0, 20.0  # seconds
_HUB_ANSWERS = "registry-1.docker.io"
# containers-registries.conf(5), containers-certs.d(5)
_CONFIGURATION = ("/etc/containers/registries.conf", "/etc/containers/registries.conf.d")
_CERTIFICATES = ("/etc/containers/certs.d", "/etc/docker/certs.d")

Login = tuple[str, str] | None


def nothing(registry: str, context: ssl.SSLContext) -> None:
    """A registry is shown no certificate of a client's."""


class Asker:
    """Connections that threads share. ``logins``: by registry; one that is not in it gets none.

    ``authorities``: a registry's CA files (PEM), beside the system's. ``at_once``: threads.
    ``present`` puts a client's certificate into a registry's context; ``names``: further hosts that
    are shown it.
    """

    def __init__(
        self,
        logins: Mapping[str, Login],
        authorities: Callable[[str], tuple[str, ...]],
        at_once: int = 1,
        present: Callable[[str, ssl.SSLContext], None] = nothing,
        names: Collection[str] = (),
    ) -> None:
        self._logins, self._authorities, self._at_once = logins, authorities, at_once
        self._present, self._names = present, names
        self._making = threading.Lock()
        self._pools: dict[tuple[str, bool], PoolManager] = {}
        self._tokens: dict[str, str] = {}

    def digest(self, image: Reference) -> str:
        """The digest that the registry says it has of ``image``; "" if it does not say."""
        answer = self._ask("HEAD", image)
        return answer.headers.get("docker-content-digest", "") if answer is not None else ""

    def manifest(self, image: Reference) -> bytes:
        """The manifest of ``image``, or of its index; b"" if the registry does not give it."""
        answer = self._ask("GET", image)
        return answer.data if answer is not None else b""

    def _ask(self, method: str, image: Reference) -> BaseHTTPResponse | None:
        from urllib3.exceptions import HTTPError

        host = _HUB_ANSWERS if image.registry == HUB else image.registry
        url = f"https://{host}/v2/{image.repository}/manifests/{image.version}"
        login = self._logins.get(image.registry)
        try:
            pool = self._pool(image.registry)
            headers = self._headers(image, login)
            answer = pool.request(method, url, headers=headers, redirect=False)
            wanted = tokens.challenge(answer.headers.get("www-authenticate", ""))
            if answer.status == 401 and wanted is not None:
                own = _host(wanted["realm"]) in (_host(url), *self._names)
                asked = self._pool(image.registry, own)
                self._tokens[image.name] = _token(asked, wanted, login)
                headers = self._headers(image, login)
                answer = pool.request(method, url, headers=headers, redirect=False)
            answer = self._followed(answer, method, url, headers, image.registry)
        except (HTTPError, OSError, ValueError, KeyError) as problem:
            _log.info("%s %s: %s", method, url, problem)
            return None
        _log.info("%s %s: %d", method, url, answer.status)
        return answer if answer.status == 200 else None

    def _headers(self, image: Reference, login: Login) -> dict[str, str]:
        token = self._tokens.get(image.name)
        right = {"Authorization": f"Bearer {token}"} if token else _basic(login)
        return {"Accept": MANIFEST_TYPES, **right}

    def _followed(
        self,
        answer: BaseHTTPResponse,
        method: str,
        url: str,
        headers: Mapping[str, str],
        registry: str,
    ) -> BaseHTTPResponse:
        """What a redirect leads to, by the rules of :mod:`moorage.registry.client`: login and
        client's certificate go to the registry's own host alone (the certificate to its further
        names, too), and nothing goes without TLS."""
        own = _host(url)
        for _ in range(MOST_REDIRECTS):
            url = onward(url, answer.status, answer.headers.get("location", ""))
            if not url:
                break
            host = _host(url)
            if host != own:
                headers = {key: one for key, one in headers.items() if key != "Authorization"}
            answer = self._pool(registry, host in (own, *self._names)).request(
                method, url, headers=headers, redirect=False
            )
        return answer

    def _pool(self, registry: str, presenting: bool = True) -> PoolManager:
        """``presenting``: with the client's certificate, which is the registry's own hosts' alone.

        Raises OSError for a CA file that cannot be read, ValueError for a proxy with a login.
        """
        with self._making:
            key = registry, presenting
            if key not in self._pools:
                self._pools[key] = self._made(*key)
            return self._pools[key]

    def _made(self, registry: str, presenting: bool) -> PoolManager:
        from urllib.request import getproxies, proxy_bypass

        import urllib3

        context = ssl.create_default_context()
        for path in self._authorities(registry):
            context.load_verify_locations(path)
        if presenting:
            self._present(registry, context)
        timeout = urllib3.Timeout(connect=_CONNECT, read=_ANSWER)
        proxy = "" if proxy_bypass(registry) else getproxies().get("https", "")
        if "@" in proxy:
            raise ValueError("a proxy that wants a login is left to skopeo")
        made = urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
        made.connection_pool_kw |= {"ssl_context": context, "timeout": timeout, "retries": False}
        made.connection_pool_kw["maxsize"] = self._at_once
        return made


def logins(authfile: str) -> dict[str, Login]:
    """Logins by registry as ``authfile`` has them, or the files that skopeo reads without it.

    Only whole logins: of a credential helper or an identity token skopeo knows the use. Pure but
    for the reading. https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
    """
    found: dict[str, Login] = {}
    for path in [Path(authfile)] if authfile else reversed(_default_files()):
        auths = _document(path).get("auths")
        for key, entry in auths.items() if isinstance(auths, dict) else ():
            word = entry.get("auth") if isinstance(entry, dict) else None
            if not isinstance(word, str):
                continue
            host = str(key).removeprefix("https://").partition("/")[0]
            registry = HUB if host == f"index.{HUB}" else host
            try:
                user, colon, password = base64.b64decode(word).decode().partition(":")
            except ValueError:
                continue
            if colon and "/" not in str(key).removeprefix("https://").removesuffix("/v1/"):
                found[registry] = (user, password)
    return found


def authorities(registry: str) -> tuple[str, ...]:
    """The CA files that skopeo has for a registry: of the first folder that is there."""
    ours = user_home() / ".config/containers/certs.d"
    for root in (ours, *map(Path, _CERTIFICATES)):
        folder = root / registry
        if folder.is_dir():
            return tuple(str(path) for path in sorted(folder.glob("*.crt")))
    return ()


def is_redirected(registry: str) -> bool:
    """Whether registries.conf says where or how a registry is asked: then skopeo alone knows."""
    main, folder = (Path(one) for one in _CONFIGURATION)
    given = os.environ.get("CONTAINERS_REGISTRIES_CONF", "")
    ours = user_home() / ".config/containers/registries.conf"
    for path in (Path(given) if given else main, ours, *sorted(folder.glob("*.conf"))):
        try:
            tables = tomllib.loads(path.read_text()).get("registry") or []
        except (OSError, ValueError):
            continue
        for one in tables if isinstance(tables, list) else ():
            if not isinstance(one, dict):
                continue
            prefix = str(one.get("prefix") or one.get("location") or "")
            if prefix.startswith(("*", registry)):
                return True
    return False


def _default_files() -> list[Path]:
    """As skopeo looks for them, the first one first."""
    run = os.environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.geteuid()}"
    docker = os.environ.get("DOCKER_CONFIG") or str(user_home() / ".docker")
    return [
        Path(os.environ.get("REGISTRY_AUTH_FILE") or f"{run}/containers/auth.json"),
        user_home() / ".config/containers/auth.json",
        Path(docker, "config.json"),
    ]


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _host(url: str) -> str:
    """The host that urllib3 connects to; other readers of a URL may find another in it.

    Raises ValueError for what it cannot read.
    """
    from urllib3.util import parse_url

    return (parse_url(url).host or "").strip("[]")


def _token(pool: PoolManager, wanted: Mapping[str, str], login: Login) -> str:
    """Raises ValueError if no token comes back."""
    if not wanted["realm"].startswith("https://"):
        raise ValueError("a login is sent over HTTPS alone")
    fields, headers = tokens.asked(wanted), _basic(login)
    token = tokens.of_answer(
        pool.request("GET", wanted["realm"], fields=fields, headers=headers).data
    )
    if not token:
        raise ValueError("its answer holds no token")
    return token


def _basic(login: Login) -> dict[str, str]:
    return basic(None if login is None else Credentials(*login))
