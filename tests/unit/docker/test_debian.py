"""Where Debian's packages come from, and that half a base image never counts."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from docker import DockerClient

from moorage import commands
from moorage.docker import apt, bootstrap, building, debian, engine
from moorage.docker.debian import DebianMirror
from moorage.errors import MoorageError
from moorage.output import silent
from moorage.settings import LabSettings
from moorage.ui import UI
from tests.unit.elsewhere import project

DEBIAN = {"ID": "debian", "VERSION_CODENAME": "trixie"}


def uris(*places: str) -> str:
    """What ``apt-get update --print-uris`` says of such places."""
    return "".join(f"'{place}/InRelease' x_dists_InRelease 0 \n" for place in places)


@pytest.mark.parametrize(
    ("places", "found"),
    [
        (["http://m.lan/debian/dists/trixie"], DebianMirror("http://m.lan/debian")),
        (
            [
                "https://m.lan/x/debian/dists/trixie",
                "https://m.lan/x/debian/dists/trixie-updates",
                "https://s.lan/debian-security/dists/trixie-security",
            ],
            DebianMirror("https://m.lan/x/debian", "https://s.lan/debian-security"),
        ),
        (["http://m.lan/debian/dists/stable"], DebianMirror("http://m.lan/debian")),
        # Somebody else's packages for Debian, before Debian's own.
        (
            ["http://vendor.lan/linux/apt/dists/trixie", "http://m.lan/debian/dists/trixie"],
            DebianMirror("http://m.lan/debian"),
        ),
        (["http://vendor.lan/linux/apt/dists/trixie"], None),
        # Out of a container's reach, or with a password that would end up in an image.
        (["http://localhost:3142/debian/dists/trixie"], None),
        (["http://127.0.0.1/debian/dists/trixie"], None),
        (["https://me:secret@m.lan/debian/dists/trixie"], None),
        (["file:/srv/debian/dists/trixie"], None),
        (["http://m.lan/debian/dists/trixie-backports"], None),
        ([], None),
    ],
)
def test_the_machines_own_mirror_is_used_where_a_container_can(
    places: list[str], found: DebianMirror | None
) -> None:
    assert debian.own_mirror(DEBIAN, uris(*places)) == found


def test_ubuntus_mirror_is_not_debians() -> None:
    ubuntu = {"ID": "ubuntu", "VERSION_CODENAME": "noble"}
    assert debian.own_mirror(ubuntu, uris("http://m.lan/debian/dists/noble")) is None


def test_a_mirror_in_the_settings_comes_first() -> None:
    mirror = debian.mirror("http://mine.lan/debian/")
    assert mirror == DebianMirror("http://mine.lan/debian")
    assert mirror.sources() == (
        "deb http://mine.lan/debian bookworm main",
        "deb http://mine.lan/debian bookworm-updates main",
    )


def test_another_mirror_makes_another_image(tmp_path: Path) -> None:
    one = project(tmp_path)
    other = project(tmp_path, lab=LabSettings(mirror="http://mine.lan/debian"))
    assert debian.tag(one) == debian.tag(project(tmp_path / "b")) != debian.tag(other)


def test_a_program_that_is_killed_with_us_is_not_cut_off(tmp_path: Path) -> None:
    """``logged`` is what mmdebstrap runs under: killed by a closed pipe it would leave mounts."""
    log, done = tmp_path / "log", tmp_path / "done"
    pid = os.fork()
    if pid == 0:
        commands.logged(["sh", "-c", f"sleep 1; echo much; echo more >&2; touch {done}"], log)
        os._exit(0)
    time.sleep(0.4)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert wait_for(done.exists)


def wait_for(condition: object, seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if callable(condition) and condition():
            return True
        time.sleep(0.05)
    return False


def test_a_stopped_run_ends_what_it_started(tmp_path: Path) -> None:
    log, late = tmp_path / "log", tmp_path / "late"

    def heard(line: str) -> None:
        if line == "begun":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commands.logged(
            ["sh", "-c", f"echo begun; (sleep 1; touch {late}) & wait"], log, heard=heard
        )
    time.sleep(1.2)
    assert not late.exists()


def test_a_failure_is_told_in_the_programs_own_words(tmp_path: Path) -> None:
    with pytest.raises(MoorageError) as failure:
        commands.logged(["sh", "-c", "echo some; echo why >&2; exit 3"], tmp_path / "log")
    assert failure.value.cause == "some\nwhy"
    assert "exit code 3" in failure.value.message
    with pytest.raises(MoorageError) as failure:
        commands.logged(["no-such-program"], tmp_path / "log")
    assert failure.value.code == "no-program"
    with pytest.raises(MoorageError) as failure:
        commands.logged(["sleep", "9"], tmp_path / "log", timeout=0.2)
    assert failure.value.code == "timeout"


@pytest.mark.engine
def test_a_mirror_out_of_reach_leaves_no_image_behind(tmp_path: Path) -> None:
    settings = project(tmp_path, lab=LabSettings(mirror="http://127.0.0.9/debian"))
    client = engine.connect(settings)
    with pytest.raises(MoorageError) as failure:
        debian.base_image(settings, client, UI(yes=True).progress)
    assert "lab.mirror" in failure.value.cure
    assert not building.exists(client, debian.tag(settings))
    assert not building.listed(client, layers=True, filters=engine.label_filter(settings))
    assert not list((tmp_path / ".moorage").rglob("*.tar"))


@pytest.mark.engine
def test_a_registry_out_of_reach_is_asked_once(tmp_path: Path) -> None:
    client = engine.connect(project(tmp_path))
    started = time.monotonic()
    # 192.0.2.0/24 is nobody's: RFC 5737.
    assert not debian.hub_answers(client, "192.0.2.1:5000/a:b", seconds=0.5)
    assert not debian.hub_answers(client, "192.0.2.1:5000/c:d", seconds=0.5)
    assert time.monotonic() - started < 0.9


def test_threads_that_need_the_base_at_once_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def made_of(_settings: object, _client: object, reference: str, _update: object) -> None:
        time.sleep(0.05)
        made.append(reference)

    settings, unused = project(tmp_path), cast("DockerClient", None)
    monkeypatch.setattr(building, "exists", lambda *_: bool(made))
    monkeypatch.setattr(debian, "hub_answers", lambda *_: False)
    monkeypatch.setattr(apt, "install", lambda *_: None)
    monkeypatch.setattr(bootstrap, "pending", list)
    monkeypatch.setattr(debian, "_bootstrap", made_of)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(debian.base_image, settings, unused, silent) for _ in range(2)]
        assert {one.result() for one in both} == {debian.tag(settings)}
    assert len(made) == 1
