"""The page: registry, images, nodes, rollouts and stuck pods, on loopback; read only unless asked.

``story`` has what is told, ``sources`` where it comes from, ``page`` how it looks, ``access`` who
may look, ``actions`` what may be done, ``history`` what was, ``server`` the requests.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from moorage.web import sources
from moorage.web.access import PagePlace

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.fleet.inventory import Target
    from moorage.fleet.rollout.operation import Reach
    from moorage.settings import Settings
    from moorage.ui import UI
    from moorage.web.actions import Actions
    from moorage.web.sources import Source

USUAL_SECONDS = 30.0


def serve(
    settings: Settings,
    ui: UI,
    hosts: Sequence[str | Target],
    place: PagePlace,
    *,
    reach: Reach | None = None,
    every: float = USUAL_SECONDS,
    api: Api | None = None,
    acts: bool = False,
) -> dict[str, Any]:
    """Serves the page until Ctrl-C. ``api``: the cluster whose pods are told of; ``acts``: the page
    has its actions. Raises Refused."""
    from moorage.fleet.inventory import targets_of
    from moorage.fleet.state import table
    from moorage.fleet.watch import Watch
    from moorage.web.actions import Actions
    from moorage.web.history import History
    from moorage.web.server import Server, run
    from moorage.web.story import Story

    server = Server(place, settings.registry_name, {})
    server.story = Story(table.ours(settings), len(hosts), server.tell)
    actions = None
    if acts:
        targets = targets_of(hosts) if hosts else ()
        show = partial(server.story.put, "actions")
        actions = Actions(settings, targets, show, reach=reach, api=api)
        show(actions.section())
        server.offer(actions)
    server.sources = _sources(settings, api, actions)
    server.sources["history"] = History(settings, server.story).look
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
        if actions is not None and actions.under_way:
            ui.note(f"the page ends when {actions.under_way} has ended")
    return {"ok": True, "url": server.place.url}


def _sources(settings: Settings, api: Api | None, actions: Actions | None) -> dict[str, Source]:
    asked: dict[str, Source] = {
        "registry": partial(sources.registry, settings),
        "images": partial(sources.images, settings),
        "rollouts": partial(sources.rollouts, settings),
    }
    if not settings.registry.external:
        asked["users"] = partial(sources.users, settings)
    if api is not None:
        asked["pods"] = partial(sources.pods, api, settings, actions)
    return asked
