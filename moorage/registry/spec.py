"""What the registry's two containers are made of: configuration, options, their digest.

The front (HAProxy) is published; the registry behind it listens on a Unix socket that both share.

Pure: the same input gives the same digest, and only another digest makes another container.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.registry.front.configuration import CONFIG as FRONT_CONFIG
from moorage.registry.front.configuration import REGISTRY_SOCKET, Places

if TYPE_CHECKING:
    from moorage.registry.logins.credentials import Credentials

# Inside the container. The port on the host is the settings' business.
PORT, METRICS_PORT = 5000, 5001
ETC, DATA = "/etc/moorage", "/var/lib/registry"
RUN = "/run/moorage"
CONFIG = "config.yml"
DIGEST_LABEL = "io.moorage.config"
# How long a stop waits for running downloads; meanwhile the registry takes no new request, so one
# slow client must not hold it for long. The engine kills only after a few seconds more.
DRAIN_SECONDS = 30
STOP_SECONDS = DRAIN_SECONDS + 10

_STORAGE = f"""\
# Written by Moorage; a change here lasts until the next `inv registry.up`.
version: 0.1
log:
  level: warn
  formatter: text
storage:
  filesystem:
    rootdirectory: {DATA}
"""
_HTTP = f"""\
http:
  net: unix
  addr: {RUN}/{{socket}}
  draintimeout: {DRAIN_SECONDS}s
  secret: {{http_secret}}
  headers:
    X-Content-Type-Options: [nosniff]
"""
# No `cache: blobdescriptor`: Distribution 2.8 to 3.1 go on believing in a blob that garbage-collect
# has deleted, and take a push that nobody can pull (distribution#3743, #4269; docs/registry.md).
_CONFIG = f"""\
{_STORAGE}  delete:
    enabled: true
{_HTTP}  debug:
    addr: :{METRICS_PORT}
    prometheus:
      enabled: true
      path: /metrics
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
"""

# What a cache has is kept: 2.8 forgets what it fetched seven days ago, but only with
# `delete.enabled`, which is not set; 3 forgets nothing with `ttl: 0`, which 2.8 passes over.
_CACHE_CONFIG = f"""\
{_STORAGE}{_HTTP}proxy:
  remoteurl: {{url}}
  ttl: 0
"""
_PROXY_LOGIN = """\
  username: {}
  password: {}
"""
# What serves a cache's store alone.
_KEPT_CONFIG = f"""\
{_STORAGE}  maintenance:
    readonly:
      enabled: true
    uploadpurging:
      enabled: false
{_HTTP}  debug:
    addr: :{METRICS_PORT}
"""
PROXY, KEPT, AUTHORITIES = "proxy.yml", "kept.yml", "authorities.pem"
# A cache in 2.8 ends at its start if the upstream does not answer, or is not trusted. So a second
# Distribution serves the same store, and the first one is started until it stays.
_CACHE = f"""\
REGISTRY_CONFIGURATION_PATH={ETC}/{KEPT} "$@" & kept=$!
trap 'asked=yes; kill "$kept" "$cache" 2>/dev/null' TERM INT
while [ -z "$asked" ]; do
  kill -0 "$kept" 2>/dev/null || exit 1
  "$@" & cache=$!
  wait "$cache"
  [ -n "$asked" ] || {{ sleep 5 & wait $!; }}
done
kill "$kept" "$cache" 2>/dev/null
wait "$kept" "$cache"
"""

# wget is in the Alpine images of the Distribution, bash in Debian's; neither has both.
_PROBE = f"""\
if command -v wget >/dev/null; then
  exec wget -q -O /dev/null http://127.0.0.1:{METRICS_PORT}/debug/health
fi
exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/{METRICS_PORT}
printf "GET /debug/health HTTP/1.0\\r\\n\\r\\n" >&3
read -r _ code _ <&3 && [ "$code" = 200 ]'
"""
# The first process of the front: the image's own entrypoint, and a wait behind it. SIGUSR1 drains
# HAProxy, and SIGTERM ends it if that takes too long; its `hard-stop-after` would also cut what
# runs in a worker that a reload leaves behind. A front that has drained has handed the rest of each
# answer to the kernel, whose sockets (4 MB each) end with the container's network, that is, with
# its first process: Docker 20.10 cut 4 MB off a slow download. proc_net_tcp(5): 1388 is port 5000;
# FIN_WAIT1, LAST_ACK and CLOSING are not delivered yet; FIN_WAIT2 is delivered, though perhaps to a
# docker-proxy that still has to pass it on.
_LINGER = f"""\
"$@" & child=$!
trap 'asked=yes; kill -USR1 "$child" 2>/dev/null
(sleep {DRAIN_SECONDS}; kill -TERM "$child" 2>/dev/null) &' TERM INT
trap 'kill -USR2 "$child" 2>/dev/null' USR2
while :; do wait "$child"; code=$?; kill -0 "$child" 2>/dev/null || break; done
in_state() {{
  grep -qE "^ *[0-9]+: [0-9A-F]+:{PORT:04X} [0-9A-F:]+ ($1) " /proc/net/tcp /proc/net/tcp6
}}
if [ -n "$asked" ]; then
  for _ in $(seq 30); do in_state "01|04|09|0B" || break; sleep 0.25; done
  for _ in $(seq 4); do in_state 05 || break; sleep 0.25; done
fi 2>/dev/null
exit "$code"
"""
_SECOND = 1_000_000_000  # the engine counts in nanoseconds


@dataclass(frozen=True)
class Spec:
    """One container: ``options`` for the Docker SDK, ``files`` for its ``/etc/moorage``.

    ``image`` is the name it is made from, ``image_id`` what that name stands for right now.
    """

    image: str
    image_id: str
    options: Mapping[str, Any]
    files: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Spec(image={self.image!r}, files={sorted(self.files)})"  # the files hold secrets

    @property
    def digest(self) -> str:
        """Of everything that matters. The secrets in it are too random to be guessed from it."""
        files = {name: hashlib.sha256(text).hexdigest() for name, text in self.files.items()}
        everything = [self.image_id, self.options, files]
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def config_yaml(http_secret: str) -> bytes:
    """The Distribution's configuration file. ``http_secret``: hexadecimal digits."""
    return _CONFIG.format(socket=REGISTRY_SOCKET, http_secret=http_secret).encode()


def front_places() -> Places:
    """Where the front finds everything in its container."""
    return Places(bind=f":{PORT}", health=f"127.0.0.1:{METRICS_PORT}", etc=ETC, run=RUN)


def options(
    *, name: str, user: str, etc: Path, data: Path, run: Path, metrics_port: int
) -> dict[str, Any]:
    """What the registry is made with, in the Docker SDK's words; labels come with its creation.

    Only its metrics are published: its API asks for no login, and the front alone has its socket.
    """
    return _common(name, user) | {
        # Both kinds of image take this: entrypoint.sh of the Distribution's, and ours.
        "command": ["serve", f"{ETC}/{CONFIG}"],
        "ports": {f"{METRICS_PORT}/tcp": ["127.0.0.1", metrics_port]},
        "volumes": {
            # Z: a label of their own where SELinux reigns, z: one for both; elsewhere nothing.
            str(etc): {"bind": ETC, "mode": "ro,Z"},
            str(data): {"bind": DATA, "mode": "rw,Z"},
            str(run): {"bind": RUN, "mode": "rw,z"},
        },
        # Distribution 3 would look for a collector of traces on localhost, and log that it fails.
        "environment": {"OTEL_TRACES_EXPORTER": "none"},
    }


def front_options(
    *, name: str, user: str, etc: Path, run: Path, listen: str, port: int
) -> dict[str, Any]:
    """What the front is made with."""
    return _common(name, user) | {
        # The image's own entrypoint follows.
        "entrypoint": ["sh", "-c", _LINGER, "sh"],
        "command": ["-W", "-db", "-f", f"{ETC}/{FRONT_CONFIG}"],
        "ports": {f"{PORT}/tcp": [listen, port]},
        "volumes": {
            str(etc): {"bind": ETC, "mode": "ro,Z"},
            str(run): {"bind": RUN, "mode": "rw,z"},
        },
        "environment": {},
        # HAProxy makes room for every descriptor it may have.
        "ulimits": [{"Name": "nofile", "Soft": 20000, "Hard": 20000}],
    }


def cache_files(
    url: str,
    login: Credentials | None,
    authorities: str,
    sockets: tuple[str, str],
    http_secret: str,
) -> dict[str, bytes]:
    """The files of a cache's container.

    ``sockets``: that of the cache, and of what serves its store alone; ``authorities``: the CAs by
    which the upstream is trusted beside those of the image, in PEM.
    """
    proxy = _CACHE_CONFIG.format(socket=sockets[0], http_secret=http_secret, url=url)
    if login is not None:
        # A JSON string is one of YAML 1.2, whatever the password has in it.
        words = (json.dumps(one, ensure_ascii=False) for one in (login.user, login.password))
        proxy += _PROXY_LOGIN.format(*words)
    return {
        PROXY: proxy.encode(),
        KEPT: _KEPT_CONFIG.format(socket=sockets[1], http_secret=http_secret).encode(),
        AUTHORITIES: authorities.encode(),
    }


def cache_options(*, name: str, user: str, etc: Path, data: Path, run: Path) -> dict[str, Any]:
    """What a cache's container is made with. Nothing of it is published: the front has its sockets.

    No password is in its environment or its command line.
    """
    return _common(name, user) | {
        "entrypoint": ["sh", "-c", _CACHE, "sh"],
        "command": ["serve"],
        "ports": {},
        "volumes": {
            str(etc): {"bind": ETC, "mode": "ro,Z"},
            str(data): {"bind": DATA, "mode": "rw,Z"},
            str(run): {"bind": RUN, "mode": "rw,z"},
        },
        "environment": {
            "OTEL_TRACES_EXPORTER": "none",
            "REGISTRY_CONFIGURATION_PATH": f"{ETC}/{PROXY}",
            # Go reads the image's own folder of CAs beside it.
            "SSL_CERT_FILE": f"{ETC}/{AUTHORITIES}",
        },
    }


def _common(name: str, user: str) -> dict[str, Any]:
    return {
        "name": name,
        "user": user,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "tmpfs": {"/tmp": "size=64m,mode=1777"},  # noqa: S108 - the container's own
        "restart_policy": {"Name": "unless-stopped"},
        "stop_timeout": STOP_SECONDS,
        "log_config": {"type": "json-file", "config": {"max-size": "10m", "max-file": "3"}},
        "healthcheck": {
            "test": ["CMD-SHELL", _PROBE],
            "interval": 10 * _SECOND,
            "timeout": 5 * _SECOND,
            "retries": 3,
            "start_period": 5 * _SECOND,
        },
    }
