"""What a cache to come would hide of the registry's own images, from nodes that ask by ``ns``.

The front looks for what such a node asks for below the upstream's name. Without ``{registry}`` in
``nodes.mirror_path`` what was mirrored before lies elsewhere, and is not found there any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage.actions import Action
from moorage.registry.storage.layout import Layout

if TYPE_CHECKING:
    from moorage.registry.caches.upstreams import Upstream
    from moorage.settings import Settings


def hidden(
    settings: Settings, before: tuple[Upstream, ...], after: tuple[Upstream, ...]
) -> list[Action]:
    """What nodes get from the caches that are new in ``after``, and no longer from the registry."""
    form = settings.nodes.mirror_path
    new = [one.name for one in after if one.name not in {known.name for known in before}]
    if "{registry}" in form or not new:
        return []
    own = Layout(settings.registry_data).repositories()
    below = [name for name in own if not form or name.startswith(f"{form}/")]
    if not below:
        return []
    count = f"{len(below)} repositories" if len(below) > 1 else "1 repository"
    upstreams = ", ".join(new)
    text = f"answer nodes that ask for images of {upstreams} from the cache, and no longer from"
    return [Action(f"{text} {count} of the registry's own, such as {below[0]}")]
