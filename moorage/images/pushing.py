"""Any image into our registry: of this engine, of an archive, of an OCI layout; by skopeo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import registry
from moorage.errors import MoorageError
from moorage.images import skopeo, sources
from moorage.images.outcome import ImageOutcome
from moorage.images.skopeo import SkopeoAccess
from moorage.images.sources import Source
from moorage.references import Reference
from moorage.registry import client
from moorage.registry.logins import external

if TYPE_CHECKING:
    from moorage.output import Progress
    from moorage.registry.logins.credentials import Credentials
    from moorage.settings import Settings
    from moorage.ui import UI


def push(settings: Settings, names: Sequence[str], wanted: str, ui: UI) -> list[ImageOutcome]:
    """Pushes every one of ``names`` and returns what became of each; one that fails stops no other.

    ``wanted``: under which name the only image goes. Raises MoorageError if the registry cannot be
    reached, before anything is read.
    """
    client.check_login(settings, registry.credentials(settings))
    skopeo.require_name(settings)
    skopeo.ensure(ui, settings)
    return pushed(settings, names, wanted, ui.progress)


def pushed(
    settings: Settings, names: Sequence[str], wanted: str, progress: Progress
) -> list[ImageOutcome]:
    """The same with a skopeo that is there, to a registry that was reached."""
    login = registry.credentials(settings)
    found: list[ImageOutcome] = []
    with skopeo.access(settings, login) as allowed:
        for name in names:
            with progress(f"pushing {name}"):
                found += _of_name(settings, name, wanted, allowed, login)
    return found


def _of_name(
    settings: Settings, name: str, wanted: str, allowed: SkopeoAccess, login: Credentials
) -> list[ImageOutcome]:
    try:
        if sources.is_file(name):
            each = sources.of_file(settings, name, wanted)
            return [_one(settings, name, source, allowed, login) for source in each]
        folder = Path(allowed.folder)
        with sources.of_engine(settings, name, wanted, folder) as source:
            return [_one(settings, name, source, allowed, login)]
    except MoorageError as problem:
        return [ImageOutcome(name, fault=external.advised(settings, problem).fault)]


def _one(
    settings: Settings, name: str, source: Source, allowed: SkopeoAccess, login: Credentials
) -> ImageOutcome:
    try:
        before = _digest(settings, source.target, login)
        skopeo.copy(source.word, source.target, allowed, exactly=source.exactly)
        after = _digest(settings, source.target, login)
    except MoorageError as problem:
        fault = external.advised(settings, problem).fault
        return ImageOutcome(name, str(source.target), fault=fault)
    return ImageOutcome(name, str(source.target), after, changed=after != before)


def _digest(settings: Settings, image: Reference, login: Credentials) -> str:
    return client.manifest_digest(settings, login, image.repository, image.version)
