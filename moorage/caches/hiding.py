"""What a cache to come would hide: repositories of the registry's own below the same path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage.actions import Action
from moorage.registry.caches import upstreams
from moorage.registry.storage.layout import Layout

if TYPE_CHECKING:
    from moorage.registry.caches.upstreams import Upstream
    from moorage.settings import Settings


def hidden(
    settings: Settings, before: tuple[Upstream, ...], after: tuple[Upstream, ...]
) -> list[Action]:
    """What nobody gets any more as long as the caches that are new in ``after`` are there."""
    known = {one.name for one in before}
    own = Layout(settings.registry_data).repositories()
    actions = []
    for one in after:
        path = upstreams.path(settings, one)
        below = [name for name in own if name == path or name.startswith(f"{path}/")]
        if below and one.name not in known:
            count = f"{len(below)} repositories" if len(below) > 1 else "1 repository"
            text = f"hide {count} of the registry's own until the cache goes again: {below[0]}"
            actions.append(Action(f"{text}, ..." if len(below) > 1 else text))
    return actions
