"""What node_exporter's textfile collector reads of the upkeep: one file, replaced as a whole.

docs/how-to/watch-it.md lists the names; a test holds the list against this.
https://github.com/prometheus/node_exporter#textfile-collector
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.wire.metrics import exposition
from agent.wire.metrics.exposition import GAUGE, Family, Sample, single
from moorage.files import write_kept
from moorage.pki.ends import first as earliest

if TYPE_CHECKING:
    from moorage.pki.ends import End
    from moorage.settings import Settings
    from moorage.upkeep.outcomes import Notes

# node_exporter runs as a user of its own.
_MODE = 0o644


def write(settings: Settings, notes: Notes) -> bool:
    """Writes the file that ``upkeep.textfile`` names -> whether it is set. Raises OSError.

    node_exporter reads names that end with ``.prom``, which that of the draft does not.
    """
    from moorage.registry import served

    if not settings.upkeep.textfile:
        return False
    ends = served.all_ends(settings)
    content = text(notes, settings.registry_name, settings.registry_data, ends)
    write_kept(Path(settings.upkeep.textfile), content.encode(), mode=_MODE)
    return True


def text(notes: Notes, registry: str, data: Path, ends: Sequence[End] = ()) -> str:
    """The metrics; ``data``: the folder of the registry's images; ``ends``: of the certificates
    that this machine keeps or serves."""
    families = (*_families(notes, data), *_certificates(ends))
    return exposition.text(families, {"registry": registry})


def _certificates(ends: Sequence[End]) -> Iterator[Family]:
    now = datetime.datetime.now(datetime.UTC)
    # Two CAs in one file may have one name: a second sample would have the file refused as a whole.
    alike: dict[tuple[str, str], list[End]] = {}
    for one in ends:
        alike.setdefault((one.what, one.where), []).append(one)
    known = [({"certificate": what, "where": at}, found) for (what, at), found in alike.items()]
    yield Family(
        "moorage_kept_certificate_end_timestamp_seconds",
        GAUGE,
        "End of a certificate of the registry's machine: in a file, or as it is served.",
        tuple(
            Sample(int(first.at.timestamp()), of)
            for of, found in known
            if (first := earliest(found)) is not None and first.at is not None
        ),
    )
    yield Family(
        "moorage_kept_certificate_valid",
        GAUGE,
        "0: it has ended, has not begun, or cannot be read; or the registry shows none.",
        tuple(
            Sample(int(all(one.state(now) in ("fine", "soon") for one in found)), of)
            for of, found in known
        ),
    )


def _families(notes: Notes, data: Path) -> Iterator[Family]:
    parts = notes.parts.items()
    yield single(
        "moorage_upkeep_last_run_timestamp_seconds",
        GAUGE,
        "When inv upkeep last came to its end.",
        notes.ran or None,
    )
    for name, words, values in (
        (
            "moorage_upkeep_last_success_timestamp_seconds",
            "When the part of the upkeep last succeeded.",
            {part: one.succeeded for part, one in parts if one.succeeded},
        ),
        (
            "moorage_upkeep_last_failure_timestamp_seconds",
            "When the part of the upkeep last failed.",
            {part: one.failed for part, one in parts if one.failed},
        ),
        (
            "moorage_upkeep_failed",
            "1: the last attempt at the part failed.",
            {part: int(bool(one.code)) for part, one in parts},
        ),
        (
            "moorage_upkeep_last_duration_seconds",
            "How long the last attempt at the part took.",
            {part: one.seconds for part, one in parts},
        ),
    ):
        samples = tuple(Sample(value, {"part": part}) for part, value in values.items())
        yield Family(name, GAUGE, words, samples)
    # Free space changes by the minute: node_exporter itself has it, by the mount point.
    yield Family(
        "moorage_registry_storage_info",
        GAUGE,
        "The file system that holds the registry's images, by its mount point.",
        (Sample(1, {"folder": str(data), "mountpoint": mount_point(data)}),),
    )


def mount_point(folder: Path) -> str:
    """Where the file system of ``folder``, or of what will hold it, is mounted."""
    path = folder.resolve()
    while not os.path.ismount(path) and path != path.parent:
        path = path.parent
    return str(path)
