"""The cluster's programs: from a folder, from the cache, from a release; whole or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lab.kubernetes.programs import binaries, names, release
from lab.kubernetes.programs.version import Version
from moorage.errors import MoorageError, Refused
from moorage.files import write_stream
from moorage.settings import LabSettings
from moorage.ui import UI
from tests.ports import free_port
from tests.unit.elsewhere import project
from tests.unit.lab.kubernetes.programs import release_stand_in

# No engine is asked for anything here.
NO_ENGINE = cast("Any", None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def stand_in() -> Iterator[release_stand_in.StandIn]:
    with release_stand_in.release() as made:
        yield made


def programs(folder: Path, **versions: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names.NEEDED:
        version = versions.get(name.replace("-", "_"), "1.30.0")
        (folder / name).write_text(f"#!/bin/sh\necho Kubernetes v{version}\n")
        (folder / name).chmod(0o755)
    return folder


def settings(tmp_path: Path, **lab: str) -> Any:
    return project(tmp_path, lab=LabSettings(**lab))


# -- a folder named in the settings ----------------------------------------------------------


def test_a_folder_says_its_version_itself(tmp_path: Path) -> None:
    folder = programs(tmp_path / "programs")
    chosen = settings(tmp_path, kubernetes_binaries=str(folder), kubernetes_version="1.20.2")
    found = binaries.ensure(chosen, NO_ENGINE, UI())
    assert found.version == Version(1, 30, 0)
    assert binaries.pending(chosen) == []


def test_a_replaced_program_is_noticed(tmp_path: Path) -> None:
    folder = programs(tmp_path / "programs")
    chosen = settings(tmp_path, kubernetes_binaries="programs")
    before = binaries.ensure(chosen, NO_ENGINE, UI()).digest
    assert binaries.ensure(chosen, NO_ENGINE, UI()).digest == before
    (folder / "kubelet").write_text("#!/bin/sh\necho  Kubernetes v1.30.0\n")
    assert binaries.ensure(chosen, NO_ENGINE, UI()).digest != before


def broken(tmp_path: Path, what: str) -> Path:
    folder = programs(tmp_path / "programs", kubelet="1.31.0" if what == "mixed" else "1.30.0")
    if what == "missing":
        (folder / "kube-proxy").unlink()
    elif what == "not executable":
        (folder / "kubelet").chmod(0o644)
    elif what == "other machine":
        (folder / "kubelet").write_bytes(b"\x7fELF\x02\x01\x01")
    elif what == "fails":
        (folder / "kubelet").write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    return folder / "nowhere" if what == "no folder" else folder


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("missing", "no program kube-proxy"),
        ("not executable", "no program kubelet"),
        ("mixed", "different versions: kube-apiserver 1.30.0"),
        ("other machine", "kubelet --version"),
        ("fails", "no such flag"),
        ("no folder", "it is not a folder"),
    ],
)
def test_a_folder_of_no_use_is_refused_with_its_cause(
    tmp_path: Path, what: str, cause: str
) -> None:
    chosen = settings(tmp_path, kubernetes_binaries=str(broken(tmp_path, what)))
    with pytest.raises(Refused) as refusal:
        binaries.pending(chosen)
    assert cause in refusal.value.cause
    assert "lab.kubernetes_binaries" in refusal.value.cure


# -- the cache -------------------------------------------------------------------------------


def sums(folder: Path) -> dict[str, str]:
    return {
        name: write_stream(folder / name, [release_stand_in.PROGRAM], mode=0o755)
        for name in names.NEEDED
    }


def test_a_filled_cache_is_used_and_nobody_is_asked(
    tmp_path: Path, stand_in: release_stand_in.StandIn
) -> None:
    chosen = settings(tmp_path, kubernetes_version="1.30.0", kubernetes_release=stand_in.place)
    assert [action.asks for action in binaries.pending(chosen)] == [True]
    binaries.fill(binaries.cache("1.30.0"), sums)
    assert binaries.pending(chosen) == []
    assert binaries.ensure(chosen, NO_ENGINE, UI()).version == Version(1, 30, 0)
    assert stand_in.asked == []


def test_the_cache_is_by_version_and_architecture(cache: Path) -> None:
    place = binaries.cache("1.30.0")
    assert place.parent == cache / "moorage" / "kubernetes" / "1.30.0"
    assert place.name in ("amd64", "arm64")


def test_a_relative_cache_home_is_ignored_as_its_specification_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert binaries.cache("1.30.0").is_relative_to(Path.home() / ".cache")


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "sums"])
def test_a_damaged_cache_is_fetched_again(
    tmp_path: Path, stand_in: release_stand_in.StandIn, harm: str
) -> None:
    chosen = settings(tmp_path, kubernetes_version="1.30.0", kubernetes_release=stand_in.place)
    folder = binaries.ensure(chosen, NO_ENGINE, UI()).folder
    victim = folder / "kubelet"
    if harm == "flip":
        victim.write_bytes(victim.read_bytes().replace(b"v1", b"v2"))
    elif harm == "truncate":
        os.truncate(victim, 3)
    elif harm == "remove":
        victim.unlink()
    else:
        (folder / names.SUMS).write_text("nothing of use")
    assert binaries.read_cache(folder) is None
    assert binaries.ensure(chosen, NO_ENGINE, UI()).folder == folder
    assert victim.read_bytes() == release_stand_in.PROGRAM


def test_a_filling_that_fails_leaves_the_old_cache_and_no_draft() -> None:
    folder = binaries.cache("1.30.0")
    binaries.fill(folder, sums)

    def full(draft: Path) -> dict[str, str]:
        (draft / "kubelet").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(MoorageError) as failure:
        binaries.fill(folder, full)
    assert failure.value.code == "cache-not-writable"
    assert binaries.read_cache(folder) is not None
    assert [path.name for path in folder.parent.iterdir() if "draft" in path.name] == []


KILLED = """
import sys, time
from pathlib import Path
from lab.kubernetes.programs import binaries
def slow(draft):
    (draft / "kubelet").write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)
binaries.fill(binaries.cache("1.30.0"), slow)
"""


def test_a_filling_that_is_killed_is_no_cache_and_does_not_stand_in_the_way() -> None:
    folder = binaries.cache("1.30.0")
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"begun\n"
        assert not folder.exists()
        maker.send_signal(signal.SIGKILL)
    assert binaries.read_cache(folder) is None
    binaries.fill(folder, sums)
    assert binaries.read_cache(folder) is not None
    assert [path.name for path in folder.parent.iterdir() if "draft" in path.name] == []


# -- the official release --------------------------------------------------------------------


def test_a_release_is_downloaded_once_and_checked(
    tmp_path: Path, stand_in: release_stand_in.StandIn
) -> None:
    chosen = settings(tmp_path, kubernetes_version="1.30.0", kubernetes_release=stand_in.place)
    found = binaries.ensure(chosen, NO_ENGINE, UI())
    digest = hashlib.sha256(release_stand_in.PROGRAM).hexdigest()
    lines = (found.folder / names.SUMS).read_text().splitlines()
    assert {line.split()[0] for line in lines} == {digest}
    assert {line.split()[1] for line in lines} == {*names.NEEDED, *names.WELCOME}
    asked = len(stand_in.asked)
    binaries.ensure(chosen, NO_ENGINE, UI())
    assert len(stand_in.asked) == asked
    assert stand_in.asked[0].startswith("/release/v1.30.0/bin/linux/")


@pytest.mark.parametrize(
    ("trouble", "code"),
    [("other", "wrong-checksum"), ("half", "download-failed"), ("missing", "download-failed")],
)
def test_what_does_not_come_as_published_is_not_kept(
    tmp_path: Path, stand_in: release_stand_in.StandIn, trouble: str, code: str
) -> None:
    chosen = settings(tmp_path, kubernetes_version="1.30.0", kubernetes_release=stand_in.place)
    stand_in.trouble["kubelet"] = trouble
    with pytest.raises(MoorageError) as failure:
        binaries.ensure(chosen, NO_ENGINE, UI())
    assert failure.value.code == code
    assert "kubelet" in failure.value.message
    assert not binaries.cache("1.30.0").exists()


@pytest.mark.parametrize("trouble", ["missing", "page"])
def test_a_place_without_that_release_is_told_from_one_with_it(
    stand_in: release_stand_in.StandIn, trouble: str
) -> None:
    stand_in.trouble["kube-apiserver.sha256"] = trouble
    assert release.why_not(stand_in.place, "9.9.9", "amd64")


def test_a_version_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    place = f"http://127.0.0.1:{free_port()}/release"
    chosen = settings(tmp_path, kubernetes_version="1.30.0", kubernetes_release=place)
    begun = time.monotonic()
    with pytest.raises(MoorageError) as failure:
        binaries.ensure(chosen, NO_ENGINE, UI())
    assert time.monotonic() - begun < 6
    assert failure.value.code == "no-kubernetes"
    assert "refused" in failure.value.cause
    assert "1.20.2" in failure.value.cure
