"""What a scrape reports of a node's trust, per registry, from what a status is made of. Pure."""

from __future__ import annotations

import calendar
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from agent.wire.metrics.exposition import GAUGE, Family, Sample, single
from agent.wire.report import StatusEvent

STATES = ("as-left", "changed", "missing")
# An agent that gave up, or cannot do, what it is there for.
UNHEALED = ("failing", "stopped")


def in_order(status: StatusEvent, drift: str = "") -> bool:
    """Whether the node is as it should be: by the same rule as the operator's ``Standing.good``.

    ``drift``: the state of the agent's watch, "" if none stays.
    """
    drifted = any(file["state"] != "as-left" for one in status.trusted for file in one["files"])
    return not (drifted or drift in UNHEALED or status.interrupted)


def families(status: StatusEvent, drift: str = "") -> Iterator[Family]:
    """The gauges of one node; those of a registry have its name as their label."""
    registries = {str(one["registry"]): one for one in status.trusted}
    pulls = {name: one.get("pulled") or {} for name, one in registries.items()}
    yield single(
        "moorage_node_in_order",
        GAUGE,
        "1: no file of ours drifted, nothing was cut off, and drift is put back.",
        int(in_order(status, drift)),
    )
    yield single(
        "moorage_interrupted",
        GAUGE,
        "1: an operation was cut off and waits for inv nodes.recover.",
        int(status.interrupted is not None),
    )
    yield single(
        "moorage_last_apply_timestamp_seconds",
        GAUGE,
        "When an apply last changed the node.",
        _seconds(status.applied),
    )
    yield single(
        "moorage_node_time_seconds", GAUGE, "The node's clock at the scrape.", status.time or None
    )
    yield _each(
        "moorage_registry_trusted",
        "1: the files of the registry's trust are as they were left, and each part was proven.",
        {name: int(trusted(one)) for name, one in registries.items()},
    )
    yield Family(
        "moorage_registry_files",
        GAUGE,
        "Files of the registry's trust by their state.",
        tuple(
            Sample(count, {"registry": name, "state": state})
            for name, one in registries.items()
            for state, count in _states(one).items()
        ),
    )
    yield _each(
        "moorage_registry_unproven_parts",
        "Parts of the node whose trust in the registry no proof has shown.",
        {name: len(one.get("unproven", ())) for name, one in registries.items()},
    )
    yield _each(
        "moorage_registry_ca_end_timestamp_seconds",
        "End of the registry's CA as the node has it.",
        {name: one.get("ca_ends") for name, one in registries.items()},
    )
    yield _each(
        "moorage_registry_last_pull_timestamp_seconds",
        "When a pull last proved the trust in the registry.",
        {name: one.get("time") for name, one in pulls.items()},
    )
    yield _each(
        "moorage_registry_last_pull_duration_seconds",
        "How long that pull took.",
        {name: one.get("seconds") for name, one in pulls.items()},
    )


def trusted(one: Mapping[str, Any]) -> bool:
    """Whether the trust in one registry of a status stands, and each part of it was proven."""
    return all(file["state"] == "as-left" for file in one["files"]) and not one.get("unproven")


def _each(name: str, words: str, values: Mapping[str, float | None]) -> Family:
    found = ((registry, value) for registry, value in values.items() if value is not None)
    samples = tuple(Sample(value, {"registry": registry}) for registry, value in found)
    return Family(name, GAUGE, words, samples)


def _states(one: Mapping[str, Any]) -> dict[str, int]:
    counts = Counter(file["state"] for file in one["files"])
    return {state: counts[state] for state in STATES}


def _seconds(text: str | None) -> float | None:
    return None if text is None else calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
