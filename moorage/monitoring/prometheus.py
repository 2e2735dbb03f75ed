"""Prometheus' configuration: what is scraped, how, and by which labels it is known. Pure.

https://prometheus.io/docs/prometheus/latest/configuration/configuration. Nothing in it is newer
than Prometheus 2.42, which Debian bookworm has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moorage.pki.authority import AGENT_NAME

if TYPE_CHECKING:
    from moorage.monitoring.scraping import Node
    from moorage.settings import Settings

INTERVAL = "30s"
# Where an agent of the DaemonSet answers a scrape; agent/daemonset/scrape.py has the same.
POD_PORT = 8078
NODE_EXPORTER_PORT = 9100
HEAD = (
    "# Written by `inv monitoring.setup`, which writes it again: changes in this file are lost.\n"
)


def targets(nodes: Sequence[Node]) -> str:
    """The file of file_sd: each node with an address, by its name."""
    groups = [
        {"targets": [one.target], "labels": {"node": one.name}} for one in nodes if one.target
    ]
    return json.dumps(groups, indent=1) + "\n"


def document(settings: Settings, *, kubernetes: bool) -> str:
    """The whole configuration; ``kubernetes``: for a Prometheus in the cluster, its agents too."""
    import yaml

    jobs = [_nodes(), _registry(settings)]
    if settings.upkeep.textfile:
        jobs.append(_upkeep())
    if kubernetes:
        jobs.append(_pods(settings))
    content = {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["alerts.yml"],
        "scrape_configs": jobs,
    }
    return HEAD + str(yaml.safe_dump(content, sort_keys=False))


def _nodes() -> dict[str, Any]:
    return {
        "job_name": "moorage-nodes",
        "scheme": "https",
        "tls_config": {
            "ca_file": "fleet-ca.crt",
            "cert_file": "viewer.crt",
            "key_file": "viewer.key",
            "server_name": AGENT_NAME,
        },
        "file_sd_configs": [{"files": ["nodes.json"]}],
    }


def _registry(settings: Settings) -> dict[str, Any]:
    return {
        "job_name": "moorage-registry",
        "static_configs": [{"targets": [f"127.0.0.1:{settings.registry.metrics_port}"]}],
    }


def _upkeep() -> dict[str, Any]:
    """node_exporter on the registry's machine, which shows how the upkeep went."""
    return {
        "job_name": "moorage-upkeep",
        "static_configs": [{"targets": [f"127.0.0.1:{NODE_EXPORTER_PORT}"]}],
    }


def _pods(settings: Settings) -> dict[str, Any]:
    """The agents of the DaemonSet by the names of their Service. Not by kubernetes_sd: that needs
    rights at the API server, and Debian's Prometheus is built without it."""
    name = f"moorage-agent.{settings.kubernetes.agents_namespace}.svc"
    return {
        "job_name": "moorage-pods",
        "dns_sd_configs": [{"names": [name], "type": "A", "port": POD_PORT}],
    }
