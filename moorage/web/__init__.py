"""The page: registry, images, nodes, rollouts and stuck pods, read only, on loopback.

``story`` has what is told, ``sources`` where it comes from, ``page`` how it looks, ``access`` who
may look, ``server`` the requests.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from moorage.web import sources
from moorage.web.access import Place

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.fleet.inventory import Target
    from moorage.fleet.rollout.operation import Reach
    from moorage.settings import Settings
    from moorage.ui import UI

USUAL_SECONDS = 30.0


def serve(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    place: Place,
    *,
    reach: Reach | None = None,
    every: float = USUAL_SECONDS,
    api: Api | None = None,
) -> dict[str, Any]:
    """Serves the page until Ctrl-C. ``api``: the cluster whose pods are told of. Raises Refused."""
    from moorage.fleet.state import table
    from moorage.fleet.watch import Watch
    from moorage.web.server import Server, run
    from moorage.web.story import Story

    asked = {
        "registry": partial(sources.registry, settings),
        "images": partial(sources.images, settings),
        "rollouts": partial(sources.rollouts, settings),
        **({"pods": partial(sources.pods, api, settings)} if api is not None else {}),
    }
    server = Server(place, settings.registry_name, asked)
    server.story = Story(table.ours(settings), len(hosts), server.tell)
    watch = Watch(settings, ui, hosts, reach, every) if hosts else None

    def ready() -> None:
        if watch is not None:
            threading.Thread(target=watch.follow, args=(server.story.hear,), daemon=True).start()
        ui.say(f"open this link, which is good once:\n  {server.link}\nCtrl-C ends the page.")
        ui.event({"event": "page", "link": server.link})

    try:
        run(server, ready)
    finally:
        if watch is not None:
            watch.stop()
    return {"ok": True, "url": server.place.url}
