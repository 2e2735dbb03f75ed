"""One moment of the registry as a folder: taken under pushes, consistent, and of no size.

Links first, content after: a manifest is taken only once all that it needs has been taken as well.
Content is linked (link(2)), not copied: Distribution never changes a blob, and a collection that
takes its name away leaves ours. What is pushed meanwhile is in the next backup.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError
from moorage.fleet.report import logbook, trusting
from moorage.registry.caches import upstreams
from moorage.registry.storage import manifest
from moorage.registry.storage.layout import Layout
from moorage.registry.storage.manifest import MAX_MANIFEST, Manifest
from moorage.registry.storage.marking import reach

if TYPE_CHECKING:
    from moorage.settings import Settings

VERSION = 1
INDEX = "moorage.json"
# What of the project is taken, by its name in a backup.
CERTS, REGISTRY, DATA, SETTINGS = "certs", "registry", "data", "invoke.yaml"
ROLLOUTS = "rollouts"

# What `inv registry.up` makes of the rest, for the users that containers have on this machine.
_MADE_AGAIN = ("etc", "front", "run", "caches-etc")


@dataclass(frozen=True)
class Frozen:
    """``folder`` holds it all; ``tags``: ``repository:tag`` -> digest; ``left_out``: images that
    were damaged, or not whole yet."""

    folder: Path
    tags: dict[str, str]
    left_out: tuple[str, ...]
    size: int


def freeze(settings: Settings, layout: Layout, folder: Path) -> Frozen:
    """Fills ``folder``, which must be on the data's file system. Raises OSError, MoorageError."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    there = Layout(folder / DATA)
    tags: dict[str, str] = {}
    left_out: list[str] = []
    size = 0
    taken: dict[str, Manifest | None] = {}
    for repository in layout.repositories():
        # Read once: a tag may move while its repository is taken.
        links = layout.tags(repository)
        whole = set()
        for digest in layout.revisions(repository):
            if _take(layout, there, repository, digest, taken):
                whole.add(digest)
            else:
                left_out.append(f"{repository}@{digest}")
        for tag, link in links.items():
            if link.digest in whole:
                _write(there.tag_link(repository, tag), link.digest, link.pushed)
                _write(_index_link(there, repository, tag, link.digest), link.digest, link.pushed)
                tags[f"{repository}:{tag}"] = link.digest
            else:
                left_out.append(f"{repository}:{tag}")
    size = sum(blob.size for blob in there.blobs())
    _project(settings, folder)
    document = {"version": VERSION, "taken": time.time(), "tags": tags, "left_out": left_out}
    (folder / INDEX).write_text(json.dumps(document, indent=1))
    return Frozen(folder, tags, tuple(left_out), size)


def read_index(folder: Path) -> dict[str, Any]:
    """What a backup says of itself. Raises MoorageError (``backup-damaged``)."""
    try:
        document: dict[str, Any] = json.loads((folder / INDEX).read_bytes())
        if document["version"] != VERSION or not isinstance(document["tags"], dict):
            raise ValueError(f"version {document['version']}")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise MoorageError(
            "backup-damaged",
            "this is not a backup of a registry",
            cause=f"{INDEX} in it cannot be read: {problem}",
            cure="inv registry.restore FROM --snapshot=ID takes an earlier one",
        ) from None
    return document


def _take(
    layout: Layout,
    there: Layout,
    repository: str,
    digest: str,
    taken: dict[str, Manifest | None],
) -> bool:
    """Takes a manifest with all that it needs; False if something of that is missing."""

    def read(one: str) -> Manifest | None:
        if one not in taken:
            taken[one] = _checked(layout, there, one)
        return taken[one]

    if read(digest) is None:
        return False
    needed = reach((digest,), read)
    children = {child for one in needed if (m := taken.get(one)) for child in m.children}
    for one in needed:
        if one in children and taken[one] is None:
            if layout.blob(one).exists():  # there, and not what its digest says
                return False
        elif not _linked(layout, there, one):
            return False
    now = time.time()
    parts = {part for one in needed if (m := taken.get(one)) for part in m.parts}
    for part in parts:
        _write(there.layer_link(repository, part), part, now)
    pushed = layout.revision_link(repository, digest)
    _write(there.revision_link(repository, digest), digest, _time_of(pushed, now))
    return True


def _checked(layout: Layout, there: Layout, digest: str) -> Manifest | None:
    content = layout.read(digest, MAX_MANIFEST)
    if content is None:
        return None
    try:
        found = manifest.checked(digest, content)
    except ValueError:
        return None
    return found if _linked(layout, there, digest) else None


def _linked(layout: Layout, there: Layout, digest: str) -> bool:
    target = there.blob(digest)
    if target.exists():
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(layout.blob(digest), target)
    except FileNotFoundError:
        return False
    return True


def _project(settings: Settings, folder: Path) -> None:
    """Both CAs, keys, roster; logins; who trusts; settings. Small, and each replaced as a whole:
    copied."""
    shutil.copytree(settings.certs_dir, folder / CERTS, ignore=shutil.ignore_patterns(".*.lock"))
    source = settings.state / "registry"
    # What caches hold, their upstreams have as well.
    data = [one.resolve() for one in (settings.registry_data, upstreams.stores(settings))]

    def passed_over(place: str, names: list[str]) -> list[str]:
        made = [name for name in names if Path(place) == source and name in _MADE_AGAIN]
        return [*made, *(name for name in names if Path(place, name).resolve() in data)]

    shutil.copytree(source, folder / REGISTRY, ignore=passed_over)
    trusting.copy(logbook.folder(settings), folder / ROLLOUTS)
    if settings.file.exists():
        shutil.copy2(settings.file, folder / SETTINGS)


def _write(path: Path, digest: str, pushed: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest)
    os.utime(path, (pushed, pushed))


def _index_link(there: Layout, repository: str, tag: str, digest: str) -> Path:
    """Where Distribution notes what a tag ever stood for."""
    top = there.tag_link(repository, tag).parent.parent
    return top / "index" / "sha256" / digest.removeprefix("sha256:") / "link"


def _time_of(path: Path, otherwise: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return otherwise
