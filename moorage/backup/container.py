"""The registry that proves a backup: a container of the registry's own image, on loopback."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.backup.proof import not_proven
from moorage.errors import MoorageError
from moorage.files import give_tree, write_atomically
from moorage.registry.spec import DATA, PORT

if TYPE_CHECKING:
    from moorage.settings import Settings

_CONFIG = "proof.yml"
_SECONDS = 30
# It answers without TLS and login, to this machine alone; what it could be written is thrown away.
_CONFIGURATION = f"""\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {DATA}}}, maintenance: {{readonly: {{enabled: true}}}}}}
http: {{addr: ":{PORT}"}}
"""


@contextmanager
def serving(settings: Settings, data: Path) -> Iterator[tuple[str, int]]:
    """A registry over ``data`` -> its host and port; it is gone afterwards. Raises MoorageError."""
    from moorage.docker import engine
    from moorage.registry import container, image

    client = engine.connect(settings)
    reference = image.present(settings, client)
    if not reference:
        raise MoorageError(
            "registry-down",
            "the image of the registry, which proves a backup, is not on this machine",
            cause="no registry has been set up here yet",
            cure="inv registry.up",
        )
    user, owner = container.user(client)
    write_atomically(data / _CONFIG, _CONFIGURATION.encode(), mode=0o644)
    if owner is not None:
        give_tree(data, owner)
    made = client.containers.run(
        reference,
        ["serve", f"{DATA}/{_CONFIG}"],
        detach=True,
        user=user,
        labels=engine.labels(settings, "proof"),
        ports={f"{PORT}/tcp": ("127.0.0.1", 0)},
        volumes={str(data): {"bind": DATA, "mode": "rw,Z"}},
        environment={"OTEL_TRACES_EXPORTER": "none"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )
    try:
        yield _awaited(made)
    finally:
        made.remove(force=True, v=True)


def _awaited(made: Any) -> tuple[str, int]:
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        made.reload()
        found = (made.ports or {}).get(f"{PORT}/tcp")
        if found and _answers(at := ("127.0.0.1", int(found[0]["HostPort"]))):
            return at
        time.sleep(0.1)
    raise not_proven("a registry", made.logs(tail=3).decode(errors="replace").strip())


def _answers(at: tuple[str, int]) -> bool:
    connection = http.client.HTTPConnection(*at, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
