"""Backups with Debian's restic, proved and restored on real registries."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage import registry as domain
from moorage.backup import freeze, giving_back, restic, taking
from moorage.backup.restic import BackupPlace
from moorage.errors import MoorageError, Refused
from moorage.pki import authority
from moorage.pki import registry as pki
from moorage.pki.roster import Resident, Roster
from moorage.registry.logins.credentials import ensure
from moorage.registry.storage import collecting, verifying
from moorage.registry.storage.layout import Layout
from moorage.settings import Settings
from moorage.ui import UI
from tests.debian import program
from tests.registry.program import INDEX, Registry, digest_of, image, index
from tests.unit.elsewhere import registry_project

QUIET = UI(as_json=True)


@contextmanager
def serve(data: Path) -> Iterator[tuple[str, int]]:
    """A process in place of the container: the same Distribution, over the same folder."""
    registry = Registry(data)
    registry.start()
    try:
        yield "127.0.0.1", registry.port
    finally:
        registry.kill()


@pytest.fixture(autouse=True)
def _restic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{Path(program('restic')).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "project").mkdir()
    return registry_project(tmp_path / "project")


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    pki.issue(settings)
    authority.Authority.open(settings)
    ensure(settings)
    Roster(settings).put("node1", Resident("id", 7443, "1", 2000000000))
    settings.registry_data.mkdir(parents=True)
    made = Registry(settings.registry_data)
    made.start()
    made.push("a", "one", b"layer", b"own")
    made.push("team/b", "two", b"layer")
    child = image(b"{}", b"layer")
    made.push_manifest("a", digest_of(child), child)
    made.push_manifest("a", "many", index(child), INDEX)
    yield made
    made.kill()


@pytest.fixture
def place(tmp_path: Path) -> BackupPlace:
    return restic.place(str(tmp_path / "backups"), "correct horse")


def elsewhere(settings: Settings, tmp_path: Path, name: str = "empty") -> Settings:
    """The same project on a machine that has nothing."""
    (tmp_path / name).mkdir()
    return replace(registry_project(tmp_path / name), registry=settings.registry)


def tags(data: Path) -> dict[str, str]:
    layout = Layout(data)
    return {
        f"{name}:{tag}": link.digest
        for name in layout.repositories()
        for tag, link in layout.tags(name).items()
    }


def test_a_restored_machine_is_the_one_that_was_lost(
    settings: Settings, registry: Registry, place: BackupPlace, tmp_path: Path
) -> None:
    done = taking.back_up(settings, QUIET.progress, place, serve)
    assert (done.first, done.tags, done.left_out) == (True, 3, ())
    other = elsewhere(settings, tmp_path)
    assert giving_back.restore(other, QUIET.progress, place).tags == 3
    assert tags(other.registry_data) == tags(settings.registry_data)
    assert pki.ca_pem(other) == pki.ca_pem(settings)
    assert domain.credentials(other).password == domain.credentials(settings).password
    assert Roster(other).residents() == Roster(settings).residents()
    for path in sorted(settings.certs_dir.rglob("*")):
        if path.is_file() and not path.name.endswith(".lock"):
            copy = other.certs_dir / path.relative_to(settings.certs_dir)
            assert copy.read_bytes() == path.read_bytes()
            assert copy.stat().st_mode == path.stat().st_mode
    served = Registry(other.registry_data)
    served.start()
    try:
        for name in ("a:one", "team/b:two", "a:many"):
            repository, _, tag = name.partition(":")
            assert served.pull(repository, tag) == ""
    finally:
        served.kill()


def test_a_restore_takes_the_newest_backup_of_its_own_profile(
    settings: Settings, registry: Registry, place: BackupPlace, tmp_path: Path
) -> None:
    first = taking.back_up(settings, QUIET.progress, place, serve)
    later = taking.back_up(replace(settings, profile="other"), QUIET.progress, place, serve)
    kept = restic.snapshots(place)
    assert [restic.profile_of(one) for one in kept] == ["default", "other"]
    assert giving_back.newest(place, kept, "") == first.snapshot
    assert giving_back.newest(place, kept, "other") == later.snapshot
    told = elsewhere(settings, tmp_path)
    assert giving_back.restore(told, QUIET.progress, place, first.snapshot).tags == 3


def snapshot(name: str, *tags: str) -> dict[str, Any]:
    return {"id": name, "tags": ["moorage", *tags]}


def test_a_backup_without_a_profile_is_that_of_the_usual_one() -> None:
    place = BackupPlace("/backups", "x")
    kept = [snapshot("1", "proven"), snapshot("2", "profile:b", "proven"), snapshot("3")]
    assert giving_back.newest(place, kept, "") == "1"
    assert giving_back.newest(place, kept, "b") == "2"
    with pytest.raises(Refused) as problem:
        giving_back.newest(place, kept, "c")
    assert "profile c" in problem.value.message
    assert problem.value.cause.endswith("of another: b, default")
    assert problem.value.cure.endswith("--snapshot=2")


def test_the_newest_backup_is_the_last_one_when_summer_time_ends_too(
    tmp_path: Path, place: BackupPlace
) -> None:
    restic.ensure(place)
    (tmp_path / "kept").write_text("kept")
    for zone, at in (("Etc/GMT-2", "02:50:00"), ("Etc/GMT-1", "02:10:00")):  # east of Greenwich
        words = ["backup", "--quiet", "--tag=moorage", f"--time=2026-10-25 {at}", "kept"]
        subprocess.run(
            ["restic", "--repo", place.at, "--password-file", "/dev/stdin", *words],
            input=place.passphrase.encode(),
            cwd=tmp_path,
            env=os.environ | {"TZ": zone},
            check=True,
        )
    times = [one["time"] for one in restic.snapshots(place)]
    assert times == ["2026-10-25T02:50:00+02:00", "2026-10-25T02:10:00+01:00"]


def test_a_second_backup_stores_only_what_is_new(
    settings: Settings, registry: Registry, place: BackupPlace
) -> None:
    registry.push("a", "large", os.urandom(3_000_000))
    taking.back_up(settings, QUIET.progress, place, serve)
    before = _size(Path(place.at))
    done = taking.back_up(settings, QUIET.progress, place, serve)
    assert not done.first
    assert _size(Path(place.at)) - before < 300_000


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_backup_amid_pushes_and_deletes_is_whole(
    settings: Settings, registry: Registry, place: BackupPlace, tmp_path: Path
) -> None:
    stop = threading.Event()

    def push() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            digest = registry.push("busy", "latest", b"%d" % number, b"layer")
            if number % 3 == 0:
                registry.delete("busy", digest)

    thread = threading.Thread(target=push)
    thread.start()
    try:
        for _ in range(3):
            taking.back_up(settings, QUIET.progress, place, serve)
    finally:
        stop.set()
        thread.join()
    other = elsewhere(settings, tmp_path)
    giving_back.restore(other, QUIET.progress, place)
    assert verifying.verify(Layout(other.registry_data)).wrong == ()


def test_what_is_collected_after_the_freeze_is_in_the_backup(
    settings: Settings, registry: Registry, tmp_path: Path
) -> None:
    layout = Layout(settings.registry_data)
    digest = registry.push("a", "gone", b"only here", config=b'{"a":1}')
    frozen = freeze.freeze(settings, layout, layout.data / "moorage" / "frozen")
    registry.delete("a", digest)
    policy = collecting.CollectionPolicy(grace=0, settle=0, keep=0)
    assert digest in collecting.collect(layout, policy).taken
    with serve(frozen.folder / freeze.DATA) as at:
        from moorage.backup import proof

        proof.pull_all(at, frozen.tags)


def test_a_damaged_image_is_left_out_and_named(settings: Settings, registry: Registry) -> None:
    layout = Layout(settings.registry_data)
    layout.blob(digest_of(b"own")).unlink()
    frozen = freeze.freeze(settings, layout, layout.data / "moorage" / "frozen")
    assert set(frozen.tags) == {"team/b:two", "a:many"}
    assert "a:one" in frozen.left_out


def test_a_backup_whose_blob_is_wrong_is_not_called_good(
    settings: Settings, registry: Registry, place: BackupPlace, tmp_path: Path
) -> None:
    layout = Layout(settings.registry_data)
    layout.blob(digest_of(b"own")).write_bytes(b"owm")
    with pytest.raises(MoorageError) as problem:
        taking.back_up(settings, QUIET.progress, place, serve)
    assert problem.value.code == "backup-not-proven"
    assert digest_of(b"own") in problem.value.message
    with pytest.raises(MoorageError) as problem:
        giving_back.restore(elsewhere(settings, tmp_path), QUIET.progress, place)
    assert problem.value.code == "no-proven-backup"
    # One that is named all the same is read before anything of it is put in place.
    other, (stored,) = elsewhere(settings, tmp_path, "named"), restic.snapshots(place)
    with pytest.raises(MoorageError) as problem:
        giving_back.restore(other, QUIET.progress, place, str(stored["id"]))
    assert (problem.value.code, problem.value.cause) == ("backup-damaged", digest_of(b"own"))
    assert _nothing(other)


def _nothing(settings: Settings) -> bool:
    there = (settings.registry_data, settings.certs_dir, settings.state / "restoring")
    return not any(path.exists() for path in there)


def test_a_wrong_passphrase_changes_nothing(
    settings: Settings, registry: Registry, place: BackupPlace, tmp_path: Path
) -> None:
    taking.back_up(settings, QUIET.progress, place, serve)
    other = elsewhere(settings, tmp_path)
    for act in (
        lambda at: giving_back.restore(other, QUIET.progress, at),
        lambda at: taking.back_up(settings, QUIET.progress, at, serve),
    ):
        with pytest.raises(MoorageError) as problem:
            act(replace(place, passphrase="another"))
        assert problem.value.code == "backup-passphrase"
    assert _nothing(other)


def test_a_place_without_a_backup_is_said_to_be_one(
    settings: Settings, place: BackupPlace, tmp_path: Path
) -> None:
    with pytest.raises(MoorageError) as problem:
        giving_back.restore(settings, QUIET.progress, place)
    assert problem.value.code == "no-backup"


def test_a_restore_over_data_is_refused(
    settings: Settings, registry: Registry, place: BackupPlace
) -> None:
    taking.back_up(settings, QUIET.progress, place, serve)
    before = pki.ca_pem(settings)
    with pytest.raises(MoorageError) as problem:
        giving_back.restore(settings, QUIET.progress, place)
    assert (problem.value.code, problem.value.exit_code) == ("restore-over-data", 2)
    assert pki.ca_pem(settings) == before


@pytest.mark.parametrize("what", ["data/docker/x", "certs/ca.crt", ".moorage/registry/password"])
def test_a_restore_over_any_part_of_a_registry_is_refused(tmp_path: Path, what: str) -> None:
    """Before restic is asked: there is no backup at that place."""
    settings = registry_project(tmp_path)
    settings = replace(settings, registry=replace(settings.registry, data="data"))
    path = tmp_path / what
    path.parent.mkdir(parents=True)
    path.write_bytes(b"of somebody")
    with pytest.raises(Refused) as refused:
        giving_back.restore(settings, QUIET.progress, BackupPlace("/nowhere", "x"))
    assert (refused.value.code, path.read_bytes()) == ("restore-over-data", b"of somebody")


@pytest.mark.parametrize("how", ["cut off", "flipped"])
def test_a_backup_that_is_cut_off_or_damaged_changes_nothing(
    settings: Settings, registry: Registry, place: BackupPlace, tmp_path: Path, how: str
) -> None:
    registry.push("a", "large", os.urandom(2_000_000))
    taking.back_up(settings, QUIET.progress, place, serve)
    largest = max((Path(place.at) / "data").rglob("*"), key=lambda path: path.stat().st_size)
    largest.chmod(0o600)
    content = largest.read_bytes()
    if how == "cut off":
        largest.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        largest.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    other = elsewhere(settings, tmp_path)
    with pytest.raises(MoorageError) as problem:
        giving_back.restore(other, QUIET.progress, place)
    assert problem.value.code == "backup-damaged"
    assert _nothing(other)


def test_a_restore_that_was_killed_is_ended_by_the_next(
    settings: Settings,
    registry: Registry,
    place: BackupPlace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = taking.back_up(settings, QUIET.progress, place, serve).snapshot
    other = elsewhere(settings, tmp_path)
    real = giving_back._put_data
    monkeypatch.setattr(giving_back, "_put_data", _killed)
    for named in ("", taken[:8]):  # the one that was taken, by its name: the same
        with pytest.raises(KeyboardInterrupt):
            giving_back.restore(other, QUIET.progress, place, named)
    monkeypatch.setattr(giving_back, "_put_data", real)
    for another, snapshot in ((replace(place, at="/mnt/another"), ""), (place, "1a2b3c4d")):
        with pytest.raises(Refused) as refused:
            giving_back.restore(other, QUIET.progress, another, snapshot)
        assert refused.value.code == "restore-over-data"
        assert f"inv registry.restore {place.at}" in refused.value.cure
    assert giving_back.restore(other, QUIET.progress, place).snapshot == taken
    assert tags(other.registry_data) == tags(settings.registry_data)
    assert not (other.state / "restoring").exists()


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_disk_without_room_for_the_proof_is_told_first(
    settings: Settings, registry: Registry, place: BackupPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(MoorageError) as problem:
        taking.back_up(settings, QUIET.progress, place, serve)
    assert problem.value.code == "backup-no-room"
    assert restic.snapshots(place) == []


@pytest.mark.parametrize(
    "text", ["", "rest:http://x", "sftp:host", "s3:", "--repo=x", "b2:bucket:x", "a\0b"]
)
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MoorageError) as problem:
        restic.place(text, "x")
    assert problem.value.code == "wrong-use"


@pytest.mark.parametrize("text", ["sftp:me@host:/backup", "s3:https://host:9000/bucket"])
def test_a_place_elsewhere_is_taken_as_it_is(text: str) -> None:
    assert restic.place(text, "x").at == text


def test_the_passphrase_is_in_no_command_line_and_no_repr(
    place: BackupPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moorage import commands

    seen: list[str] = []
    real = commands.run

    def noting(argv: list[str], **options: object) -> object:
        seen.extend(argv)
        return real(argv, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(commands, "run", noting)
    restic.ensure(place)
    assert seen
    assert not any("correct horse" in word for word in [*seen, repr(place)])
