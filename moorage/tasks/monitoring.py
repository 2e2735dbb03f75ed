"""The fleet, watched by Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.monitoring import Monitoring


@command(
    help={
        "to": "the folder to write (else .moorage/monitoring)",
        "kubernetes": "scrape the agents of the DaemonSet too, by a Prometheus in the cluster",
        "no_check": "do not ask each agent once, as Prometheus will",
    }
)
def setup(
    run: Run, to: str | None = None, kubernetes: bool = False, no_check: bool = False
) -> dict[str, Any]:
    """Write what Prometheus and Grafana need: a viewer's certificate, scraping, alerts, panels.

    Example: inv monitoring.setup --to=/etc/prometheus/moorage
    Example: inv monitoring.setup --kubernetes --no-check
    """
    from moorage import monitoring
    from moorage.files import user_path

    folder = user_path(to) if to else run.settings.state / "monitoring"
    found = monitoring.setup(
        run.settings, folder.absolute(), kubernetes=kubernetes, check=not no_check
    )
    _show(run, found)
    return {"ok": True, **found.to_json()}


def _show(run: Run, found: Monitoring) -> None:
    from collections import Counter

    from moorage import monitoring
    from moorage.monitoring import scraping

    files = ", ".join(found.changed)
    run.ui.show(f"{found.folder}: {f'wrote {files}' if files else 'unchanged'}")
    run.ui.show(f"the viewer's certificate ends in {monitoring.days_left(found)} days")
    counts = Counter(one.state for one in found.answers)
    if counts:
        run.ui.show(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    for one in found.answers:
        if one.error is not None and one.state != scraping.SCRAPED:
            run.ui.error(one.error)


namespace = Collection("monitoring", setup)
