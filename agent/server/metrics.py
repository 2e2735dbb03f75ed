"""What Prometheus reads of an agent that stays: the agent, the node's trust, the registries' ends.

docs/how-to/watch-it.md lists the names; a test holds the list against this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agent.wire.metrics import exposition, gauges
from agent.wire.metrics.exposition import COUNTER, GAUGE, Family, Sample, single
from agent.wire.report import StatusEvent

CODES = {"watching": 0, "healing": 1, "failing": 2, "stopped": 3}
# Where images and our own notes lie: a full disk fails pulls before anything else does.
FOLDERS = ("/", "/var", "/var/lib", "/var/lib/containerd", "/var/lib/docker")


class Look(NamedTuple):
    """What a registry's door showed from this node: ``ends`` is None if it was not reached."""

    registry: str
    ends: int | None


def text(
    resident: Mapping[str, Any],
    counts: Mapping[tuple[str, str], int],
    under_way: int,
    status: StatusEvent | None,
    looks: Sequence[Look] = (),
    root: str = "/",
) -> str:
    """The metrics of one agent: ``resident`` as a status has it, ``counts`` by (what, status).

    ``status`` is None if our notes on the node are damaged.
    """
    return exposition.text(
        [
            *_agent(resident, counts, under_way),
            *_last_pull(resident),
            single(
                "moorage_state_damaged",
                GAUGE,
                "1: the agent's notes on the node cannot be read.",
                int(status is None),
            ),
            *(gauges.families(status, resident["drift"]["state"]) if status is not None else ()),
            *_registries(looks),
            *_disks(root),
        ]
    )


def _agent(
    resident: Mapping[str, Any], counts: Mapping[tuple[str, str], int], under_way: int
) -> Iterator[Family]:
    drift = resident["drift"]
    about = {name: str(resident[name]) for name in ("version", "digest")}
    yield Family(
        "moorage_agent_info", GAUGE, "The agent's version and archive.", (Sample(1, about),)
    )
    yield Family(
        "moorage_operations_total",
        COUNTER,
        "Operations by what became of them.",
        tuple(
            Sample(count, {"operation": name, "status": status})
            for (name, status), count in sorted(counts.items())
        ),
    )
    yield single("moorage_operations_under_way", GAUGE, "Operations at work now.", under_way)
    yield single(
        "moorage_refused_total", COUNTER, "Connections and requests refused.", resident["refused"]
    )
    yield single(
        "moorage_drift_healed_total", COUNTER, "Times that drift was put back.", drift["healed"]
    )
    yield single(
        "moorage_drift_state",
        GAUGE,
        "0 watching, 1 healing, 2 failing, 3 stopped by fights.",
        CODES[drift["state"]],
    )
    yield single(
        "moorage_certificate_end_timestamp_seconds",
        GAUGE,
        "End of the agent's certificate.",
        resident["certificate_ends"],
    )


def _last_pull(resident: Mapping[str, Any]) -> Iterator[Family]:
    pulled = [one for one in resident["last"].values() if one["pull_seconds"] is not None]
    last = max(pulled, key=lambda one: int(one["time"]), default=None)
    if last is not None:
        words = "How long the last proving pull since the agent's start took."
        yield single("moorage_last_pull_seconds", GAUGE, words, last["pull_seconds"])
        words = "When that pull was made."
        yield single("moorage_last_pull_timestamp_seconds", GAUGE, words, last["time"])


def _registries(looks: Sequence[Look]) -> Iterator[Family]:
    yield Family(
        "moorage_registry_reachable",
        GAUGE,
        "1: TLS to the registry, with the CA of the node's plan, stood a minute ago.",
        tuple(Sample(int(one.ends is not None), {"registry": one.registry}) for one in looks),
    )
    yield Family(
        "moorage_registry_certificate_end_timestamp_seconds",
        GAUGE,
        "End of the certificate that the registry showed this node.",
        tuple(
            Sample(one.ends, {"registry": one.registry}) for one in looks if one.ends is not None
        ),
    )


def _disks(root: str) -> Iterator[Family]:
    found: dict[int, tuple[str, os.statvfs_result]] = {}
    for folder in FOLDERS:
        path = os.path.join(root, folder.lstrip("/"))  # noqa: PTH118
        try:
            found.setdefault(os.stat(path).st_dev, (folder, os.statvfs(path)))  # noqa: PTH116
        except OSError:
            continue
    for name, words, blocks in (
        ("moorage_filesystem_size_bytes", "Size of the file system that has the folder.", 0),
        ("moorage_filesystem_avail_bytes", "What of it is free for all.", 1),
    ):
        yield Family(
            name,
            GAUGE,
            words,
            tuple(
                Sample((seen.f_bavail if blocks else seen.f_blocks) * seen.f_frsize, {"folder": at})
                for at, seen in found.values()
            ),
        )
