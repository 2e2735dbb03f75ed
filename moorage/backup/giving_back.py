"""A backup put in place on a machine that has none of it: images, CAs, roster, login, settings.

Everything is got back and checked in a folder of its own; only then is it put in place, and a run
that is killed while it does so is ended by the next one.
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage import files
from moorage.backup import freeze, restic
from moorage.configuration.profiles import DEFAULT
from moorage.errors import MoorageError, Refused
from moorage.fleet.report import logbook, trusting
from moorage.registry.storage import verifying
from moorage.registry.storage.layout import Layout

if TYPE_CHECKING:
    from moorage.backup.restic import BackupPlace
    from moorage.output import Progress
    from moorage.settings import Settings

_READY = "ready"


@dataclass(frozen=True)
class RestoredBackup:
    """``snapshot`` is "" if an earlier run had got it; ``tags``: how many images came back."""

    snapshot: str
    tags: int


def restore(
    settings: Settings, progress: Progress, at: BackupPlace, snapshot: str = ""
) -> RestoredBackup:
    """Puts the newest proven backup of this profile in place, or that ``snapshot``.

    Raises Refused (``restore-over-data``, ``no-proven-backup``, ``trusting-unreadable``) or
    MoorageError (``backup-damaged``): nothing is changed then.
    """
    folder = settings.state / "restoring"
    if (begun := files.content_of(folder / _READY)) is not None:
        snapshot = _require_same(folder, begun.decode(), at, snapshot)
    else:
        asked = f"{at.at}\n{snapshot}"
        _require_empty(settings)
        snapshot = snapshot or newest(at, restic.snapshots(at), settings.profile)
        shutil.rmtree(folder, ignore_errors=True)
        files.private_folder(folder)
        try:
            with progress(f"getting {snapshot[:8]} back from {at.at}"):
                restic.restore(at, snapshot, folder)
            _require_whole(folder)
            _require_empty(_restored_settings(settings, folder))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        files.write_atomically(folder / _READY, f"{asked}\n{snapshot}".encode())
    document = freeze.read_index(folder)
    _put_in_place(_restored_settings(settings, folder), folder)
    shutil.rmtree(folder)
    return RestoredBackup(snapshot, len(document["tags"]))


def _require_same(folder: Path, begun: str, at: BackupPlace, snapshot: str) -> str:
    """The whole id of the snapshot that a restore which was cut off is ended with: its own."""
    place, asked, found = [*begun.split("\n"), "", ""][:3]
    same = snapshot == asked or (snapshot and found.startswith(snapshot))
    if not begun or (place == at.at and same):  # "": of an earlier Moorage, which noted nothing
        return found or snapshot
    option = f" --snapshot={asked}" if asked else ""
    raise Refused(
        "restore-over-data",
        f"a restore from {place} was cut off while it put things in place",
        cause="some of it may be here already, and two backups must not be mixed",
        cure=f"end that one: inv registry.restore {shlex.quote(place)}{option}; or, in a checkout "
        f"that has nothing of it: rm -r {shlex.quote(str(folder))}",
        path=str(folder),
    )


def _require_empty(settings: Settings) -> None:
    for path, what in (
        (settings.registry_data / "docker", "images"),
        (settings.certs_dir / "ca.crt", "a CA"),
        (settings.state / "registry" / "password", "a registry's login"),
    ):
        if path.exists():
            raise Refused(
                "restore-over-data",
                f"there is {what} here already: {path}",
                cause="a backup is restored on a machine that has nothing of a registry",
                cure="restore in a fresh checkout; or, if it may go: inv registry.down --purge, "
                f"and move {settings.certs_dir} away",
                path=str(path),
            )


def newest(at: BackupPlace, found: Sequence[Mapping[str, Any]], profile: str) -> str:
    """The id of the last of the snapshots that is proven and of that profile. Pure.

    Raises Refused (``no-proven-backup``).
    """
    proven = [one for one in found if "proven" in (one.get("tags") or ())]
    wanted = profile or DEFAULT
    ours = [one for one in proven if restic.profile_of(one) == wanted]
    if ours:
        return str(ours[-1]["id"])
    others = ", ".join(sorted({restic.profile_of(one) for one in proven}))
    raise Refused(
        "no-proven-backup",
        f"no backup of the profile {wanted} at {at.at} was ever proven",
        cause=f"those there are of another: {others}"
        if others
        else "each backup so far was stopped, or failed, before every tag was pulled from it",
        cure=f"if the newest of these is meant: --snapshot={str(proven[-1]['id'])[:8]}"
        if others
        else "inv registry.backup makes one; --snapshot=ID takes one as it is",
    )


def _require_whole(folder: Path) -> None:
    freeze.read_index(folder)
    if wrong := verifying.verify(Layout(folder / freeze.DATA)).wrong:
        raise MoorageError(
            "backup-damaged",
            f"{len(wrong)} blobs of the backup are damaged",
            cause=", ".join(one.digest for one in wrong[:3]),
            cure="inv registry.restore FROM --snapshot=ID takes an earlier one",
        )


def _restored_settings(settings: Settings, folder: Path) -> Settings:
    """This project with the settings of the backup: they say where data and certificates go."""
    import yaml

    from moorage.configuration.parsing import parse

    path = folder / freeze.SETTINGS
    if not path.exists():
        return settings
    tree: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    parsed = parse(tree, source=str(path), profile=settings.profile)
    given = {one.name: getattr(parsed, one.name) for one in dataclasses.fields(parsed)}
    return dataclasses.replace(settings, **given)


def _put_in_place(settings: Settings, folder: Path) -> None:
    """Each piece as a whole; what an earlier run has put there comes to no harm.

    Who trusts is first: only that meets what is here already, and may be refused for it.
    """
    trusting.take_over(logbook.folder(settings), folder / freeze.ROLLOUTS)
    registry = folder / freeze.REGISTRY
    for path in sorted(registry.rglob("*")) if registry.exists() else ():
        if path.is_file():
            target = settings.state / "registry" / path.relative_to(registry)
            files.private_folder(target.parent)
            files.write_atomically(target, path.read_bytes())
    certs = folder / freeze.CERTS
    if certs.exists() and not (settings.certs_dir / "ca.crt").exists():
        with files.replaced_folder(settings.certs_dir) as draft:
            shutil.copytree(certs, draft, dirs_exist_ok=True)
    _put_data(settings, folder / freeze.DATA)
    config = folder / freeze.SETTINGS
    present = settings.file
    if config.exists() and (not present.exists() or present.read_bytes() != config.read_bytes()):
        if present.exists():
            kept = settings.state / f"{freeze.SETTINGS}.before-restore"
            files.write_atomically(kept, present.read_bytes())
        files.write_atomically(present, config.read_bytes(), mode=0o644)


def _put_data(settings: Settings, data: Path) -> None:
    if not data.exists():
        return
    settings.registry_data.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = settings.registry_data / "docker"
    if not target.exists() and (data / "docker").exists():
        # On another file system this is a copy, under a name that counts for nothing until its end.
        draft = target.with_name(".docker.restoring")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.move(data / "docker", draft)
        draft.rename(target)
