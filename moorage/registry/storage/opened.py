"""This project's storage folder, once it is one that may be read, or collected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.registry.logins import external
from moorage.registry.storage.layout import Layout

if TYPE_CHECKING:
    from moorage.settings import Settings


def opened(settings: Settings) -> Layout:
    """The registry's storage folder. Raises Refused (``no-storage``) if nothing was ever pushed."""
    external.require_own(settings, "a look into a registry's storage")
    layout = Layout(settings.registry_data)
    if not layout.top.is_dir():
        raise Refused(
            "no-storage",
            f"there are no images in {settings.registry_data}",
            cause="nothing was pushed yet, or registry.data names another folder",
            cure="inv registry.status; inv image.push pushes the first image",
            path=str(settings.registry_data),
        )
    return layout


def for_collection(settings: Settings) -> Layout:
    """The same, if the registry notices that a blob is gone. Raises Refused (``collect-cache``).

    With a cache of blobs' descriptors it answers "exists" for ever, takes the push and has no image
    (distribution#3743); registries of our earlier builds have one until they are made anew.
    """
    from moorage.registry.logins.credentials import folder
    from moorage.registry.spec import CONFIG

    external.require_own(settings, "inv registry.collect")
    path = folder(settings) / "etc" / CONFIG
    try:
        cached = b"blobdescriptor" in path.read_bytes()
    except FileNotFoundError:
        cached = False
    if cached:
        raise Refused(
            "collect-cache",
            "this registry would not notice what a collection takes",
            cause="its configuration has a cache of blobs, as earlier builds wrote it",
            cure="inv registry.up makes it again without one, its images stay; then collect",
            path=str(path),
        )
    return opened(settings)
