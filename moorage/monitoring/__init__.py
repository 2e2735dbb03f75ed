"""What watches the fleet from outside: Prometheus' configuration, alert rules, a dashboard.

``setup`` writes a folder that Prometheus reads as it is; every path in it is relative to it.

    prometheus.yml    nodes.json (file_sd)    alerts.yml    dashboard.json (Grafana)
    viewer.crt        viewer.key (0600)       fleet-ca.crt
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.errors import Refused
from moorage.files import readable_folder, write_kept
from moorage.monitoring import dashboard, prometheus, rules, scraping
from moorage.monitoring.scraping import Node, ScrapeAnswer
from moorage.pki.authority import Authority
from moorage.pki.roster import Roster

if TYPE_CHECKING:
    from moorage.settings import Settings

DAY = 86400


@dataclass(frozen=True)
class Monitoring:
    """What ``setup`` left in ``folder``: ``changed`` are the names of the files that are new or
    other than before; ``ends`` is the end of the viewer's certificate, in seconds since 1970."""

    folder: Path
    changed: tuple[str, ...]
    ends: int
    answers: tuple[ScrapeAnswer, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "changed": list(self.changed),
            "viewer_ends": self.ends,
            "nodes": {
                one.node.name: {
                    "address": one.node.target,
                    "state": one.state,
                    **({"error": one.error.to_json()} if one.error else {}),
                }
                for one in self.answers
            },
        }


def setup(settings: Settings, folder: Path, *, kubernetes: bool, check: bool) -> Monitoring:
    """Writes the folder; ``check`` asks each agent once with the viewer's certificate.

    Raises Refused if there is nothing to scrape, or ``folder`` is a file.
    """
    nodes = scraping.nodes(Roster(settings).residents())
    if not nodes and not kubernetes:
        raise Refused(
            "nothing-to-scrape",
            "no agent stays on a node of this folder, so there is nothing to scrape",
            cause="agents stay after inv nodes.trust; those of a cluster are scraped if asked for",
            cure="inv nodes.trust --hosts=NODE, or inv monitoring.setup --kubernetes",
        )
    if folder.exists() and not folder.is_dir():
        raise Refused(
            "not-a-folder",
            f"{folder} is not a folder",
            cause="Prometheus' files are written into a folder of their own",
            cure="inv monitoring.setup --to=FOLDER",
            path=str(folder),
        )
    authority = Authority.open(settings)
    viewer = authority.viewer()
    files: Mapping[str, tuple[str, int]] = {
        "fleet-ca.crt": (authority.pem, 0o644),
        "viewer.key": (viewer.key, 0o600),
        "viewer.crt": (viewer.pem, 0o644),
        "nodes.json": (prometheus.targets(nodes), 0o644),
        "alerts.yml": (rules.document(settings, viewer.until), 0o644),
        "dashboard.json": (dashboard.document(), 0o644),
        "prometheus.yml": (prometheus.document(settings, kubernetes=kubernetes), 0o644),
    }
    readable_folder(folder)
    changed = tuple(
        name
        for name, (content, mode) in files.items()
        if write_kept(folder / name, content.encode(), mode=mode)
    )
    answers = scraping.ask(nodes, authority.pem, folder) if check else ()
    return Monitoring(folder, changed, viewer.until, answers)


def days_left(found: Monitoring) -> int:
    """Whole days until the viewer's certificate ends."""
    return int((found.ends - time.time()) // DAY)


__all__ = ["Monitoring", "Node", "ScrapeAnswer", "days_left", "setup"]
