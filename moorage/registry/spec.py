"""What the registry's container is made of: its configuration file, its options, their digest.

Pure: the same input gives the same digest, and only another digest makes another container.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Inside the container. The port on the host is the settings' business.
PORT, METRICS_PORT = 5000, 5001
ETC, DATA = "/etc/moorage", "/var/lib/registry"
CONFIG, HTPASSWD, CERTIFICATE, KEY = "config.yml", "htpasswd", "tls.crt", "tls.key"
DIGEST_LABEL = "io.moorage.config"
# How long a stop waits for running downloads; meanwhile the registry takes no new request, so one
# slow client must not hold it for long. The engine kills only after a few seconds more.
DRAIN_SECONDS = 30
STOP_SECONDS = DRAIN_SECONDS + 10

# No `cache: blobdescriptor`: Distribution 2.8 to 3.1 go on believing in a blob that garbage-collect
# has deleted, and take a push that nobody can pull (distribution#3743, #4269; docs/registry.md).
_CONFIG = f"""\
# Written by Moorage; a change here lasts until the next `inv registry.up`.
version: 0.1
log:
  level: info
  formatter: text
storage:
  filesystem:
    rootdirectory: {DATA}
  delete:
    enabled: true
http:
  addr: :{PORT}
  draintimeout: {DRAIN_SECONDS}s
  secret: {{http_secret}}
  tls:
    certificate: {ETC}/{CERTIFICATE}
    key: {ETC}/{KEY}
    minimumtls: tls1.2
  headers:
    X-Content-Type-Options: [nosniff]
  debug:
    addr: :{METRICS_PORT}
    prometheus:
      enabled: true
      path: /metrics
auth:
  htpasswd:
    realm: Moorage
    path: {ETC}/{HTPASSWD}
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
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
# The first process of the container: the image's own entrypoint, and a wait behind it. A registry
# that has drained has handed the rest of each answer to the kernel, whose sockets (4 MB each) end
# with the container's network, that is, with its first process: Docker 20.10 cut 4 MB off a slow
# download. proc_net_tcp(5): 1388 is port 5000; FIN_WAIT1, LAST_ACK and CLOSING are not delivered
# yet; FIN_WAIT2 is delivered, though perhaps to a docker-proxy that still has to pass it on.
_LINGER = f"""\
"$@" & child=$!
trap 'asked=yes; kill -TERM "$child" 2>/dev/null' TERM INT
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
    return _CONFIG.format(http_secret=http_secret).encode()


def options(
    *,
    name: str,
    user: str,
    etc: Path,
    data: Path,
    listen: str,
    port: int,
    metrics_port: int,
) -> dict[str, Any]:
    """What the container is made with, in the Docker SDK's words; labels come with its creation."""
    return {
        "name": name,
        # The image's own entrypoint follows.
        "entrypoint": ["sh", "-c", _LINGER, "sh"],
        # Both kinds of image take this: entrypoint.sh of the Distribution's, and ours.
        "command": ["serve", f"{ETC}/{CONFIG}"],
        "user": user,
        "ports": {
            f"{PORT}/tcp": [listen, port],
            f"{METRICS_PORT}/tcp": ["127.0.0.1", metrics_port],
        },
        # Z: a label of their own where SELinux reigns; elsewhere nothing.
        "volumes": {
            str(etc): {"bind": ETC, "mode": "ro,Z"},
            str(data): {"bind": DATA, "mode": "rw,Z"},
        },
        # Distribution 3 would look for a collector of traces on localhost, and log that it fails.
        "environment": {"OTEL_TRACES_EXPORTER": "none"},
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
