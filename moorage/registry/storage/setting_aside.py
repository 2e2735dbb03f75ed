"""What a collection took out of the store, and the way back: a folder a run, by its time.

Everything goes by rename(2) within one file system: it is here or there, whole, at any instant, and
no byte is copied. The folders in between are never taken away from under a registry that serves.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from moorage.registry.storage.layout import DIGEST, Layout

_STAMP = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True)
class Batch:
    """What one run set aside; ``since``: when it began (seconds since 1970)."""

    folder: Path
    since: float

    def items(self) -> Iterator[Path]:
        """The files, as paths below Distribution's own folder: blobs before links.

        That is the order of the way back: a link without its blob would be a lie.
        """
        for part in ("blobs", "repositories"):
            for path in sorted((self.folder / part).rglob("*")):
                if path.is_file():
                    yield path.relative_to(self.folder)


def begin(layout: Layout, now: float) -> Batch:
    """A folder for one run. Raises OSError."""
    name = datetime.fromtimestamp(now, UTC).strftime(_STAMP)
    folder = layout.aside / name
    folder.mkdir(parents=True, mode=0o700)
    return Batch(folder, now)


def batches(layout: Layout) -> list[Batch]:
    """What earlier runs set aside, the oldest first; folders of other names are not ours."""
    found = []
    for path in sorted(layout.aside.glob("*")):
        try:
            since = datetime.strptime(path.name, _STAMP).replace(tzinfo=UTC)
        except ValueError:
            continue
        found.append(Batch(path, since.timestamp()))
    return found


def digest_of(item: Path) -> str:
    """The digest that a file of a batch belongs to."""
    return f"sha256:{item.parent.name}"


def content(layout: Layout, digest: str) -> bytes | None:
    """What is set aside under ``digest``; None for nothing."""
    place = layout.blob(digest).relative_to(layout.top)
    for batch in reversed(batches(layout)):
        try:
            return (batch.folder / place).read_bytes()
        except FileNotFoundError:
            continue
    return None


def take(layout: Layout, batch: Batch, item: Path) -> bool:
    """Takes a file out of the store; False if it is gone already. Raises OSError."""
    target = batch.folder / item
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        (layout.top / item).rename(target)
    except FileNotFoundError:
        return False
    return True


def give_back(layout: Layout, batch: Batch, item: Path) -> bool:
    """Puts a file back; False if the registry has it again by itself. Raises OSError.

    The same content, or the same link, is worth the same: which of the two stays is no matter.
    """
    target = layout.top / item
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    (batch.folder / item).rename(target)
    return True


def give_back_all(layout: Layout, batch: Batch, wanted: Iterable[str] | None = None) -> set[str]:
    """Puts back what belongs to ``wanted`` (None: everything) -> the digests of blobs put back."""
    chosen = None if wanted is None else set(wanted)
    returned = set()
    for item in batch.items():
        digest = digest_of(item)
        if not DIGEST.fullmatch(digest) or (chosen is not None and digest not in chosen):
            continue
        if give_back(layout, batch, item) and item.parts[0] == "blobs":
            returned.add(digest)
    return returned


def forget(batch: Batch) -> int:
    """Deletes a batch for good -> the bytes that came free. Raises OSError."""
    size = sum((batch.folder / item).stat().st_size for item in batch.items())
    # Under another name first: half a batch must never look like a whole one.
    gone = batch.folder.with_name(f".{batch.folder.name}.gone")
    batch.folder.rename(gone)
    shutil.rmtree(gone)
    return size


def forget_halves(layout: Layout) -> None:
    """Deletes what a run left that was stopped while it deleted."""
    for path in layout.aside.glob(".*.gone"):
        shutil.rmtree(path)
