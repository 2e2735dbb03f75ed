"""The upkeep with nobody at the keyboard, on a real front, registry and restic."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from moorage import upkeep
from moorage.backup import container, restic
from moorage.errors import MoorageError, Refused
from moorage.pki import registry as pki
from moorage.program import reading
from moorage.registry import served, spec
from moorage.registry.logins.credentials import credentials
from moorage.registry.storage.layout import Layout
from moorage.settings import Settings, UpkeepSettings
from moorage.tasks.registry import upkeep as task
from moorage.ui import UI
from moorage.upkeep import due, outcomes, textfile
from tests.debian import program
from tests.loopback import Loopback, basic, loopback
from tests.registry.test_backup import serve
from tests.unit.elsewhere import registry_project
from tests.unit.registry.front.test_front import MANIFEST, push

QUIET = UI(as_json=True)
DAY = datetime.timedelta(days=1)
HOUR = 3600


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{Path(program('restic')).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(container, "serving", lambda _, data: serve(data))


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A registry that was stood up 364 days ago: its certificate has a day left."""
    now = datetime.datetime.now(datetime.UTC)
    with ExitStack() as stack:
        # HAProxy takes no path of a socket that is longer than 97 bytes.
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upkeep")))
        with monkeypatch.context() as then:
            then.setattr(pki, "_now", lambda: now - 364 * DAY)
            made = stack.enter_context(loopback(registry_project(root)))
        monkeypatch.setattr(spec, "ETC", made.etc)
        yield made


def wanting(front: Loopback, **settings: Any) -> Settings:
    """The project's settings with these of the upkeep."""
    return dataclasses.replace(front.settings, upkeep=UpkeepSettings(**settings))


def backing_up(front: Loopback, tmp_path: Path, **settings: Any) -> Settings:
    (tmp_path / "passphrase").write_text("correct horse\n")
    at, file = str(tmp_path / "backups"), str(tmp_path / "passphrase")
    return wanting(front, backup=at, passphrase_file=file, **settings)


def states(settings: Settings, *, dry_run: bool = False) -> dict[str, str]:
    found = upkeep.keep_up(settings, QUIET, dry_run=dry_run)
    return {one.part: one.state for one in found}


def ends(front: Loopback) -> datetime.timedelta:
    """How long the certificate that is served has left."""
    now = datetime.datetime.now(datetime.UTC)
    return served.certificate(front.settings).not_after - now


def old_image(front: Loopback, tag_days: int, layer: bytes) -> str:
    """An image that was pushed so many days ago -> its digest."""
    digest = push(front, credentials(front.settings), "app", layer)
    long_ago = time.time() - tag_days * 86400
    for path in front.settings.registry_data.rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))
    return digest


def blob(front: Loopback, content: bytes) -> Path:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Layout(front.settings.registry_data).blob(digest)


# -- the certificate --------------------------------------------------------------------------


def test_a_leaf_with_a_day_left_is_renewed_with_nobody_at_the_keyboard(front: Loopback) -> None:
    assert ends(front) < 2 * DAY
    pulling = front.connection()
    who = basic(credentials(front.settings))
    pulling.request("GET", "/v2/", headers=who)
    assert pulling.getresponse().read() == b"{}"
    open_before = pulling.sock
    assert states(front.settings)["renew"] == "done"
    assert ends(front) > 360 * DAY
    pulling.request("GET", "/v2/", headers=who)
    assert pulling.getresponse().status == 200
    assert pulling.sock is open_before
    pulling.close()
    assert front.ask("GET", "/v2/", credentials(front.settings))[0] == 200  # verifies the new one
    assert states(front.settings)["renew"] == "not-due"


def test_a_leaf_that_was_put_there_by_hand_is_served(front: Loopback) -> None:
    states(front.settings)
    pki.issue(front.settings, renew=True)
    shown = pki.show(front.settings).registry
    assert shown is not None
    assert served.certificate(front.settings).fingerprint != shown.fingerprint
    assert states(front.settings)["renew"] == "done"
    assert served.certificate(front.settings).fingerprint == shown.fingerprint


def test_a_rehearsal_says_what_is_due_and_changes_nothing(front: Loopback, tmp_path: Path) -> None:
    old_image(front, 90, b"layer")
    settings = backing_up(front, tmp_path, older_than="30d", textfile=str(tmp_path / "u.prom"))
    told = upkeep.keep_up(settings, QUIET, dry_run=True)
    # Everything goes by that policy, which is refused unless it is said outright.
    assert {one.part: one.state for one in told} == {
        "renew": "would", "prune": "failed", "collect": "not-due", "backup": "would",
    }  # fmt: skip
    assert "issue the certificate of localhost" in told[0].words
    assert ends(front) < 2 * DAY
    assert not outcomes.path(settings).exists()
    assert not (tmp_path / "backups").exists()
    assert not (tmp_path / "u.prom").exists()


# -- all of it --------------------------------------------------------------------------------


def test_what_is_due_is_done_and_then_nothing_is(front: Loopback, tmp_path: Path) -> None:
    old_image(front, 90, b"old layer")
    newest = push(front, credentials(front.settings), "app", b"new layer")  # takes the tag
    lonely = blob(front, b"old layer")
    assert lonely.exists()
    settings = backing_up(front, tmp_path, untagged=True, without_nodes=True)
    assert states(settings) == dict.fromkeys(("renew", "prune", "collect", "backup"), "done")
    assert not lonely.exists()
    path, accept = f"/v2/app/manifests/{newest}", {"Accept": MANIFEST}
    assert front.ask("GET", path, credentials(settings), headers=accept)[0] == 200
    place = restic.place(settings.upkeep.backup, "correct horse")
    assert ["proven" in one["tags"] for one in restic.snapshots(place)] == [True]
    again = states(settings)
    # What was set aside is kept for a day, so the collection has something to look at.
    assert again == {
        "renew": "not-due", "prune": "not-due", "collect": "done", "backup": "not-due",
    }  # fmt: skip
    noted = outcomes.read(settings).parts
    assert set(noted) == set(outcomes.PARTS)
    assert all(one.succeeded and not one.failed and not one.code for one in noted.values())


def test_a_part_that_fails_does_not_stop_the_others(front: Loopback, tmp_path: Path) -> None:
    old_image(front, 90, b"layer")
    front.stop("front")  # so that no certificate can be exchanged
    settings = backing_up(front, tmp_path, keep=1, protect=("nothing-like-it",))
    told = {one.part: one for one in upkeep.keep_up(settings, QUIET)}
    assert {name: one.state for name, one in told.items()} == {
        "renew": "failed", "prune": "failed", "collect": "not-due", "backup": "done",
    }  # fmt: skip
    errors = {name: one.error.code for name, one in told.items() if one.error}
    assert errors == {"renew": "front-silent", "prune": "prune-matches-nothing"}
    noted = outcomes.read(settings).parts
    assert (noted["renew"].code, noted["prune"].code) == ("front-silent", "prune-matches-nothing")
    assert noted["backup"].succeeded and noted["collect"].succeeded


def test_a_defect_of_ours_does_not_stop_the_others_and_is_not_hidden(
    front: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(settings: Settings) -> due.Due:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(due, "PARTS", {"collect": broken, "renew": due.renewal})
    with pytest.raises(ZeroDivisionError):
        upkeep.keep_up(front.settings, QUIET)
    assert ends(front) > 360 * DAY
    assert outcomes.read(front.settings).parts["collect"].code == "defect"


def test_a_backup_is_due_a_day_after_the_last_good_one(
    front: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(front, credentials(front.settings), "app", b"layer")
    settings = backing_up(front, tmp_path)
    now = time.time()
    for hours, state in ((0, "done"), (19, "not-due"), (23, "done"), (24, "not-due")):
        monkeypatch.setattr(time, "time", lambda hours=hours: now + hours * HOUR)
        assert states(settings)["backup"] == state, hours
    # A clock that went back, or a note of the future, does not put the next one off for ever.
    monkeypatch.setattr(time, "time", lambda: now - 90 * 24 * HOUR)
    assert states(settings, dry_run=True)["backup"] == "would"


def test_a_backup_that_failed_is_due_at_once(front: Loopback, tmp_path: Path) -> None:
    push(front, credentials(front.settings), "app", b"layer")
    settings = backing_up(front, tmp_path)
    assert states(settings)["backup"] == "done"
    with pytest.raises(MoorageError), outcomes.noted(settings, QUIET, "backup"):
        raise MoorageError("backup-failed", "the line broke")
    assert states(settings)["backup"] == "done"


def test_a_registry_that_nobody_pushed_to_needs_nothing(front: Loopback) -> None:
    settings = wanting(front, keep=3, without_nodes=True)
    assert states(settings) == {
        "renew": "done", "prune": "not-due", "collect": "not-due", "backup": "not-due",
    }  # fmt: skip


# -- the command ------------------------------------------------------------------------------


def typed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, Any]]:
    """``inv upkeep --json`` -> exit code and document."""
    monkeypatch.setattr(reading, "settings_of", lambda _: settings)
    code = 0
    try:
        task.run(Context(), json=True)
    except Exit as end:
        code = end.code
    return code, json.loads(capsys.readouterr().out)


def test_the_exit_code_is_1_if_a_part_failed(
    front: Loopback, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = typed(front.settings, monkeypatch, capsys)
    assert (code, document["ok"], document["changed"]) == (0, True, True)
    assert document["parts"]["renew"]["state"] == "done"
    broken = wanting(front, backup="/nowhere/at/all", passphrase_file="/nowhere/passphrase")
    push(front, credentials(front.settings), "app", b"layer")
    code, document = typed(broken, monkeypatch, capsys)
    assert (code, document["ok"], document["changed"]) == (1, False, False)
    assert document["parts"]["backup"]["error"]["code"] == "system-refused"
    assert document["parts"]["collect"]["state"] == "not-due"


# -- what is left of it -----------------------------------------------------------------------


def test_a_word_that_a_person_typed_wrongly_is_no_failure_of_the_part(tmp_path: Path) -> None:
    settings = registry_project(tmp_path)
    with pytest.raises(Refused), outcomes.noted(settings, QUIET, "collect"):
        raise Refused("wrong-use", "invalid --grace")
    assert outcomes.read(settings).parts == {}
    with pytest.raises(Refused), outcomes.noted(settings, QUIET, "collect", refusals=True):
        raise Refused("collect-cache", "it would lose images")
    assert outcomes.read(settings).parts["collect"].code == "collect-cache"


def test_a_stop_leaves_no_note(tmp_path: Path) -> None:
    settings = registry_project(tmp_path)
    with pytest.raises(KeyboardInterrupt), outcomes.noted(settings, QUIET, "collect"):
        raise KeyboardInterrupt
    assert not outcomes.path(settings).exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"ran": "x", "parts": {}}', '{"ran": 1, "parts": {"collect": 5}}']
)
def test_notes_that_are_damaged_count_as_none(tmp_path: Path, content: str) -> None:
    settings = registry_project(tmp_path)
    outcomes.ran(settings)
    outcomes.path(settings).write_text(content)
    assert outcomes.read(settings) == outcomes.Notes()
    with outcomes.noted(settings, QUIET, "renew"):
        pass
    assert outcomes.read(settings).parts["renew"].succeeded


def test_the_file_for_node_exporter_is_for_all_to_read_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "moorage.prom"
    settings = dataclasses.replace(
        registry_project(tmp_path), upkeep=UpkeepSettings(textfile=str(file))
    )
    pki.issue(settings)
    with outcomes.noted(settings, QUIET, "collect"):
        pass
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert stat.S_IMODE(outcomes.path(settings).stat().st_mode) == 0o600
    text = file.read_text()
    assert 'moorage_upkeep_failed{registry="' in text
    of = f'{{registry="{settings.registry_name}",certificate='
    assert f'moorage_kept_certificate_valid{of}"CA",' in text
    assert f'moorage_kept_certificate_end_timestamp_seconds{of}"{served.LEAF}",' in text
    assert [one.name for one in tmp_path.glob("*prom*")] == ["moorage.prom"]


def test_a_file_that_cannot_be_written_is_told_by_the_upkeep(
    front: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    settings = wanting(front, textfile=str(tmp_path / "nowhere" / "moorage.prom"))
    code, document = typed(settings, monkeypatch, capsys)
    assert code == 1
    assert document["parts"]["renew"]["state"] == "done"
    assert document["parts"]["textfile"]["error"]["code"] == "textfile-unwritten"


def test_the_mount_point_is_that_of_the_folder(tmp_path: Path) -> None:
    found = textfile.mount_point(tmp_path / "not" / "yet")
    assert os.path.ismount(found)
    assert tmp_path.stat().st_dev == Path(found).stat().st_dev
    (tmp_path / "link").symlink_to("/proc/self")
    assert textfile.mount_point(tmp_path / "link") == "/proc"
