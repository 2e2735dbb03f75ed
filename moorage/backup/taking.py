"""A backup: frozen, stored, given back into a folder of its own, and pulled from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.backup import freeze, proof, restic
from moorage.errors import MoorageError, Refused
from moorage.registry.storage.layout import Layout
from moorage.registry.storage.opened import opened

if TYPE_CHECKING:
    from moorage.backup.proof import Serve
    from moorage.backup.restic import BackupPlace
    from moorage.output import Progress
    from moorage.settings import Settings


@dataclass(frozen=True)
class BackedUp:
    """A backup that was proven. ``size``: bytes of its images; ``first``: the place was new."""

    snapshot: str
    tags: int
    size: int
    first: bool
    left_out: tuple[str, ...]


def back_up(settings: Settings, progress: Progress, at: BackupPlace, serve: Serve) -> BackedUp:
    """Raises Refused (``backup-no-room``; nothing is stored then) or MoorageError; a snapshot that
    was stored and not proven is never taken for a good one."""
    layout = opened(settings)
    first = restic.ensure(at)
    with _scratch(layout, "frozen") as folder, progress("freezing the registry"):
        frozen = freeze.freeze(settings, layout, folder)
        _require_room(layout, frozen.size)
        with progress(f"storing it at {at.at}"):
            snapshot = restic.backup(at, folder, settings.profile)
    with _scratch(layout, "proof") as folder:
        with progress("getting it back"):
            restic.restore(at, snapshot, folder)
        if freeze.read_index(folder)["tags"] != frozen.tags:
            raise MoorageError(
                "backup-not-proven",
                "the backup has other tags than the registry had",
                cause=f"snapshot {snapshot[:8]} was changed on its way",
                cure="the same command again makes another",
            )
        with progress("pulling every tag from it") as update:
            update(total=len(frozen.tags))
            with serve(folder / freeze.DATA) as address:
                proof.pull_all(address, frozen.tags, lambda done: update(done=done))
    snapshot = restic.prove(at, snapshot)
    return BackedUp(snapshot, len(frozen.tags), frozen.size, first, frozen.left_out)


def incomplete(done: BackedUp) -> MoorageError | None:
    """What is wrong with a backup that is good as far as it goes; None if it has every image."""
    if not done.left_out:
        return None
    return MoorageError(
        "backup-incomplete",
        f"the backup leaves out {len(done.left_out)} images that are not whole in the registry",
        cause=", ".join(done.left_out[:5]),
        cure="inv registry.verify names what is missing; push these images again, or delete them",
    )


def _require_room(layout: Layout, size: int) -> None:
    """The proof gets everything back beside the images themselves."""
    free = shutil.disk_usage(layout.data).free
    if free < size * 1.05:
        raise Refused(
            "backup-no-room",
            f"there is no room to prove the backup: {free:,} bytes are free",
            cause=f"it is got back to be pulled from, which takes {size:,} bytes",
            cure=f"make room on the file system of {layout.data}: inv registry.collect",
            path=str(layout.data),
        )


@contextmanager
def _scratch(layout: Layout, name: str) -> Iterator[Path]:
    """A folder beside the images; what a killed run left of it goes first."""
    folder = layout.data / "moorage" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
