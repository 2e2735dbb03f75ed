"""Packages: what apt says becomes a cause and a cure; what was brought is taken away again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moorage import commands
from moorage.docker import apt
from moorage.errors import Refused
from moorage.settings import ROOT, Settings
from moorage.supply import loaded
from moorage.ui import UI
from tests.unit.elsewhere import project

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no dpkg here")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)",
            "apt-busy",
        ),
        ("E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend)", "apt-busy"),
        ("E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7", "apt-busy"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk-full"),
        ("dpkg: error: failed to write: No space left on device", "disk-full"),
        ("W: Failed to fetch http://m.lan/x  Temporary failure resolving 'm.lan'", "no-network"),
        ("E: Unable to locate package docker.io", "no-package"),
        ("E: Package 'docker.io' has no installation candidate", "no-package"),
        (
            "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct",
            "dpkg-interrupted",
        ),
        ("E: The package x needs to be reinstalled, but I can't find it", "dpkg-interrupted"),
        ("E: something new", "apt-failed"),
    ],
)
def test_apts_words_become_a_cause_and_a_cure(said: str, code: str) -> None:
    problem = apt.explain(["install", "docker.io"], f"Reading package lists...\n{said}\n")
    assert problem.code == code
    assert problem.cause == said
    assert problem.cure


@needs_dpkg
def test_what_is_installed_is_not_missing() -> None:
    assert apt.missing(["dpkg", "no-such-package"]) == ("no-such-package",)
    assert apt.missing([]) == ()
    assert apt.pending(["dpkg"]) == []


def test_a_system_without_apt_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (
        lambda: apt.pending(["docker.io"]),
        lambda: apt.install(["docker.io"], UI().progress, project(tmp_path)),
    ):
        with pytest.raises(Refused) as refusal:
            ask()
        assert refusal.value.code == "no-apt"
        assert "Debian and Ubuntu" in refusal.value.cause
    assert not (tmp_path / ".moorage").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"packages": 3}', '{"packages": null}'])
def test_a_torn_record_counts_as_nothing_installed(tmp_path: Path, content: str) -> None:
    settings = project(tmp_path)
    settings.state.mkdir()
    (settings.state / "installed.json").write_text(content)
    assert apt.installed_by_us(settings) == ()
    assert apt.remove(["dpkg"], UI(), settings) == ()


# Runs in a container of its own: the packages of this machine are not a test's to change.
_IN_A_CONTAINER = """
import json, subprocess
from pathlib import Path
from unittest.mock import MagicMock
from moorage import commands
from moorage.docker import apt

def packages():
    told = commands.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n"])
    return sorted(told.stdout.decode().split("\\n"))

settings, ui = MagicMock(state=Path("/tmp/state")), MagicMock()
before = packages()
apt.install(["fakeroot"], ui.progress, settings)
brought = apt.installed_by_us(settings)
again = packages()
apt.install(["fakeroot"], ui.progress, settings)
assert packages() == again
# Cut off in the worst place, as by a power failure: dpkg calls that "reinst-required".
status = Path("/var/lib/dpkg/status")
text = status.read_text()
begin = text.index("Package: fakeroot\\n")
broken = text[begin:].replace("install ok installed", "install reinstreq half-installed", 1)
status.write_text(text[:begin] + broken)
apt.install(["fakeroot"], ui.progress, settings)
mended = packages() == again
gone = apt.remove(brought, ui, settings)
print(json.dumps({
    "brought": brought, "mended": mended, "gone": gone, "same": packages() == before,
    "left": apt.installed_by_us(settings),
}))
"""


@pytest.mark.engine
def test_what_was_brought_is_mended_when_cut_off_and_taken_away_whole() -> None:
    from docker.errors import ContainerError

    from moorage.docker import debian, engine

    ours = Settings()
    client = engine.connect(ours)
    image = debian.base_image(ours, client, UI(yes=True).progress)
    try:
        said = client.containers.run(
            image,
            ["python3", "-B", "-c", _IN_A_CONTAINER],
            environment={"PYTHONPATH": "/project"},
            volumes={str(ROOT): {"bind": "/project", "mode": "ro"}},
            network_mode="host",
            remove=True,
        )
    except ContainerError as failure:
        sys.stderr.write(str(failure.stderr))
        raise
    told = json.loads(said.decode().splitlines()[-1])
    assert {"fakeroot", "libfakeroot"} <= set(told["brought"])
    assert told["mended"]
    assert told["gone"] == told["brought"]
    assert told["same"]
    assert told["left"] == []


def test_the_lists_of_a_bundle_are_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def run(argv: list[str], **how: object) -> subprocess.CompletedProcess[bytes]:
        """A stand-in: nothing is there, all ends well."""
        if "apt-get" in argv:
            asked.append((argv[-1], bool(how.get("root"))))
        there = b"moorage-test installed\n" if ("moorage-test", True) in asked else b""
        return subprocess.CompletedProcess(argv, 0, there, b"")

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(loaded, "apt_words", lambda *_: ["-o", "Dir::State::Lists=/x"])
    apt.install(["moorage-test"], UI().progress, project(tmp_path))
    assert asked == [("update", False), ("moorage-test", False), ("moorage-test", True)]
