"""The dashboard for Grafana as rows: a panel a row, its kind and what it asks. Pure.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model; no
plugin is needed, and the data source is chosen at import.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

NUMBER, PLOT, TABLE = "stat", "timeseries", "table"
_WIDTH, _HEIGHT = 24, 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}


class Panel(NamedTuple):
    """``width`` of 24; ``unit`` is one of Grafana's."""

    title: str
    kind: str
    width: int
    expression: str
    legend: str = ""
    unit: str = "short"


PANELS = (
    Panel("Nodes in order", NUMBER, 6, "sum(moorage_node_in_order)"),
    Panel("Nodes not in order", NUMBER, 6, "sum(1 - moorage_node_in_order)"),
    Panel("Silent agents", NUMBER, 6, 'sum(up{job=~"moorage-(nodes|pods)"} == bool 0)'),
    Panel(
        "The first certificate ends in",
        NUMBER,
        6,
        'min({__name__=~"moorage_(registry_|registry_ca_)?(certificate_)?end_timestamp_seconds"})'
        " - time()",
        unit="s",
    ),
    Panel("Not trusted", TABLE, 12, "moorage_registry_trusted == 0", "{{node}} {{registry}}"),
    Panel(
        "Last proving pull",
        TABLE,
        12,
        "time() - moorage_registry_last_pull_timestamp_seconds",
        "{{node}} {{registry}}",
        "s",
    ),
    Panel("Drift put back", PLOT, 12, "increase(moorage_drift_healed_total[1h])", "{{node}}"),
    Panel(
        "Disk free",
        PLOT,
        12,
        "moorage_filesystem_avail_bytes / moorage_filesystem_size_bytes",
        "{{node}} {{folder}}",
        "percentunit",
    ),
    Panel(
        "Registry: requests per second",
        PLOT,
        12,
        "sum by (code) (rate(registry_http_requests_total[5m]))",
        "{{code}}",
        "reqps",
    ),
    Panel("Refused by agents", PLOT, 12, "increase(moorage_refused_total[1h])", "{{node}}"),
)


def document() -> str:
    """The dashboard, as Grafana imports it."""
    return (
        json.dumps(
            {
                "title": "Moorage",
                "uid": "moorage",
                "schemaVersion": 36,
                "editable": True,
                "time": {"from": "now-6h", "to": "now"},
                "refresh": "30s",
                "templating": {
                    "list": [{"name": "source", "type": "datasource", "query": "prometheus"}]
                },
                "panels": _placed(),
            },
            indent=1,
        )
        + "\n"
    )


def _placed() -> list[dict[str, Any]]:
    """The panels from left to right, each row as wide as the screen."""
    found, x, y = [], 0, 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > _WIDTH:
            x, y = 0, y + _HEIGHT
        place = {"x": x, "y": y, "w": panel.width, "h": _HEIGHT}
        found.append(_panel(number, panel, place))
        x += panel.width
    return found


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    target = {
        "refId": "A",
        "expr": panel.expression,
        "legendFormat": panel.legend or "__auto",
        "datasource": _SOURCE,
        **({"format": "table", "instant": True} if panel.kind == TABLE else {}),
    }
    return {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "gridPos": place,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [target],
    }
