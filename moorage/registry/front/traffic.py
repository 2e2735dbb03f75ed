"""What the registry and its front have served since they were started, by their own counters."""

from __future__ import annotations

import csv
import http.client
import re
from dataclasses import dataclass
from pathlib import Path

from moorage.registry.front import runtime

# https://github.com/docker/go-metrics: Distribution counts every answer by its handler.
_MANIFEST_READ = re.compile(
    r'^registry_http_requests_total\{code="200",handler="manifest",method="get"\} ([0-9.e+]+)$',
    re.MULTILINE,
)
_SECONDS = 3.0
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Requests:
    """Requests at the front: all of them, those refused (4xx), those that failed (5xx)."""

    all: int
    refused: int
    failed: int


def requests(run: Path) -> Requests:
    """What the front has counted; ``run``: the folder of its socket. Raises MoorageError
    (``front-silent``).

    https://docs.haproxy.org/2.6/management.html#9.1: columns by their names in the first line.
    """
    told = runtime.ask(run, "show stat")
    rows = csv.DictReader(told.removeprefix("# ").splitlines())
    mine = [one for one in rows if (one["pxname"], one["svname"]) == ("front", "FRONTEND")]
    counts = ("req_tot", "hrsp_4xx", "hrsp_5xx")
    return Requests(*(sum(int(one[name] or 0) for one in mine) for name in counts))


def pulls(port: int) -> int | None:
    """Manifests that the registry has handed out since its start, by its metrics on ``port`` of
    loopback; None if it does not say."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        line.request("GET", "/metrics")
        text = line.getresponse().read(_MOST_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        line.close()
    return read_pulls(text)


def read_pulls(text: str) -> int | None:
    """The same, of the registry's metrics in text; None if they are somebody else's. Pure."""
    found = _MANIFEST_READ.search(text)
    if found is not None:
        return int(float(found[1]))
    # The counter comes into being with the first pull.
    return 0 if "registry_storage_action_seconds" in text else None
