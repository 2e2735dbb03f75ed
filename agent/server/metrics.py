"""What Prometheus reads: the text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CODES = {"watching": 0, "healing": 1, "failing": 2, "stopped": 3}


def text(resident: Mapping[str, Any], counts: Mapping[tuple[str, str], int], under_way: int) -> str:
    """The metrics of one agent: ``resident`` as a status has it, ``counts`` by (what, status)."""
    drift = resident["drift"]
    pulled = [one for one in resident["last"].values() if one["pull_seconds"] is not None]
    lines = [
        *_metric("moorage_agent_info", "gauge", "The agent's version and archive."),
        f'moorage_agent_info{{version="{resident["version"]}",digest="{resident["digest"]}"}} 1',
        *_metric("moorage_operations_total", "counter", "Operations by what became of them."),
        *(
            f'moorage_operations_total{{operation="{name}",status="{status}"}} {count}'
            for (name, status), count in sorted(counts.items())
        ),
        *_metric("moorage_operations_under_way", "gauge", "Operations at work now."),
        f"moorage_operations_under_way {under_way}",
        *_metric("moorage_refused_total", "counter", "Connections and requests turned away."),
        f"moorage_refused_total {resident['refused']}",
        *_metric("moorage_drift_healed_total", "counter", "Times that drift was put back."),
        f"moorage_drift_healed_total {drift['healed']}",
        *_metric(
            "moorage_drift_state", "gauge", "0 watching, 1 healing, 2 failing, 3 stopped by fights."
        ),
        f"moorage_drift_state {CODES[drift['state']]}",
        *_metric(
            "moorage_certificate_end_timestamp_seconds", "gauge", "End of the agent's certificate."
        ),
        f"moorage_certificate_end_timestamp_seconds {resident['certificate_ends']}",
    ]
    if pulled:
        last = max(pulled, key=lambda one: int(one["time"]))
        lines += [
            *_metric("moorage_last_pull_seconds", "gauge", "How long the last proving pull took."),
            f"moorage_last_pull_seconds {last['pull_seconds']}",
            *_metric("moorage_last_pull_timestamp_seconds", "gauge", "When it was made."),
            f"moorage_last_pull_timestamp_seconds {last['time']}",
        ]
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, words: str) -> tuple[str, str]:
    return f"# HELP {name} {words}", f"# TYPE {name} {kind}"
