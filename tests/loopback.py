"""A front and a registry on loopback: real HAProxy and real docker-registry, no container.

The programs are this machine's, else those of Debian's packages, unpacked.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moorage.pki import registry as pki
from moorage.registry import caching, service, spec
from moorage.registry.caches import upstreams
from moorage.registry.caches.upstreams import Upstream
from moorage.registry.front import roles, runtime
from moorage.registry.front.configuration import (
    CONFIG,
    NAMELESS,
    PAIRS,
    Places,
    haproxy_cfg,
    pairs_list,
)
from moorage.registry.logins import users
from moorage.registry.logins.credentials import Credentials, ensure
from moorage.settings import Settings
from tests.debian import unpacked
from tests.ports import free_port

PACKAGES = (
    "docker-registry",
    "haproxy",
    "liblua5.3-0",
    "libopentracing-c-wrapper0",
    "libopentracing1",
)


def programs() -> tuple[str, str, dict[str, str]]:
    """(docker-registry, haproxy, their environment); skips where neither apt nor they are there."""
    found = [shutil.which(name) for name in ("docker-registry", "haproxy")]
    if found[0] and found[1]:
        return found[0], found[1], dict(os.environ)
    root = unpacked("loopback", *PACKAGES)
    folders = sorted({str(path.parent) for path in root.rglob("*.so*")})
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}
    return f"{root}/usr/bin/docker-registry", f"{root}/usr/sbin/haproxy", environment


@dataclass
class Loopback:
    """What runs: ``ask`` speaks to the front as a client without any library's opinion."""

    settings: Settings
    environment: dict[str, str]
    argv: dict[str, list[str]]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def etc(self) -> str:
        return str(service.etc(self.settings))

    def start(self, name: str) -> None:
        log = (self.settings.state / f"{name}.log").open("ab")
        self.running[name] = subprocess.Popen(
            self.argv[name], env=self.environment, stdout=log, stderr=log, start_new_session=True
        )

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        program = self.running.pop(name)
        os.killpg(program.pid, number)
        program.wait(60)

    def log(self, name: str) -> str:
        return (self.settings.state / f"{name}.log").read_text(errors="replace")

    def apply(self) -> None:
        """The logins as they are kept, in force."""
        path = service.etc(self.settings) / "logins.map"
        rows = roles.rows(users.everybody(self.settings))
        path.write_bytes(rows)
        runtime.replace_logins(service.run(self.settings), self.etc, rows)

    def renew(self) -> None:
        """Another leaf, served by the runtime socket."""
        pki.issue(self.settings, renew=True)
        runtime.replace_pair(service.run(self.settings), self.etc, service.pair(self.settings))

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=pki.ca_pem(self.settings))

    def connection(self, timeout: float = 90) -> http.client.HTTPSConnection:
        port = self.settings.registry.port
        return http.client.HTTPSConnection(
            "localhost", port, context=self.context(), timeout=timeout
        )

    def ask(
        self,
        method: str,
        path: str,
        login: Credentials | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = self.connection()
        try:
            connection.request(method, path, body, {**basic(login), **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def basic(login: Credentials | None) -> dict[str, str]:
    if login is None:
        return {}
    pair = f"{login.user}:{login.password}".encode()
    return {"Authorization": f"Basic {b64encode(pair).decode()}"}


@contextmanager
def loopback(settings: Settings) -> Iterator[Loopback]:
    """A registry that is up, with its certificate and the operator's login."""
    registry, haproxy, environment = programs()
    pki.issue(settings)
    ensure(settings)
    etc, run = service.etc(settings), service.run(settings)
    for folder in (etc, run, settings.registry_data):
        folder.mkdir(parents=True, mode=0o700)
    places = Places(
        f"127.0.0.1:{settings.registry.port}", f"127.0.0.1:{free_port()}", str(etc), str(run)
    )
    key = roles.haproxy_key(users.ensure_key(settings))
    caches = upstreams.read(settings)
    routes = upstreams.cached(settings, caches)
    (etc / CONFIG).write_bytes(haproxy_cfg(places, key, caches=routes))
    (etc / "logins.map").write_bytes(roles.rows(users.everybody(settings)))
    (etc / PAIRS).write_bytes(pairs_list(str(etc)))
    (etc / "tls.pem").write_bytes(service.pair(settings))
    (etc / NAMELESS).write_bytes(service.nameless(settings))
    config = settings.state / "config.yml"
    text = spec.config_yaml("0" * 64).decode().replace(spec.RUN, str(run))
    text = text.replace(spec.DATA, str(settings.registry_data))
    config.write_text(text.replace(f":{spec.METRICS_PORT}", f"127.0.0.1:{free_port()}"))
    argv = {
        "registry": [registry, "serve", str(config)],
        "front": [haproxy, "-W", "-db", "-f", str(etc / CONFIG)],
    }
    argv |= {f"cache-{one.file}": _cache(settings, registry, one) for one in caches}
    made = Loopback(settings, environment, argv)
    try:
        for name in argv:
            made.start(name)
        ready(made)
        yield made
    finally:
        for name in list(made.running):
            made.stop(name, signal.SIGKILL)


def _cache(settings: Settings, registry: str, one: Upstream) -> list[str]:
    """A cache's command, as its container has it, with this machine's paths."""
    etc, store = upstreams.etc(settings, one), upstreams.store(settings, one)
    options = spec.cache_options(name="", user="", etc=etc, data=store, run=service.run(settings))
    places = {spec.ETC: etc, spec.DATA: store, spec.RUN: service.run(settings)}
    for folder in (etc, store):
        folder.mkdir(parents=True, mode=0o700)
    for name, content in caching.files(settings, one).items():
        text = content.decode().replace(f":{spec.METRICS_PORT}", f"127.0.0.1:{free_port()}")
        (etc / name).write_text(_here(text, places))
    variables = [f"{key}={_here(value, places)}" for key, value in options["environment"].items()]
    script = [_here(word, places) for word in options["entrypoint"]]
    return ["env", *variables, *script, registry, *options["command"]]


def _here(text: str, places: Mapping[str, Path]) -> str:
    for inner, outer in places.items():
        text = text.replace(inner, str(outer))
    return text


def ready(made: Loopback) -> None:
    """Until both answer, as after a start."""
    deadline = time.monotonic() + 30
    while True:
        try:
            if (
                made.ask("GET", "/v2/")[0] == 401
                and (service.run(made.settings) / "registry.sock").exists()
            ):
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, made.log("front") + made.log("registry")
        time.sleep(0.1)
