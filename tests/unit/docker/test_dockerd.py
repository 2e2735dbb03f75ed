"""A real dockerd of our own: started by hand, dead at start, stopped, and never another's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.docker import dockerd
from moorage.errors import MoorageError, Refused

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts a dockerd without sudo"),
]


class Place:
    """Where a second dockerd lives; with a network and mounts of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.socket = root / "s"

    @property
    def options(self) -> tuple[str, ...]:
        return (
            f"--data-root={self.root}/data",
            f"--exec-root={self.root}/exec",
            f"--host=unix://{self.socket}",
            "--iptables=false",
        )

    def answers(self) -> bool:
        import docker

        try:
            docker.DockerClient(base_url=f"unix://{self.socket}", timeout=2).close()
        except docker.errors.DockerException:
            return False
        return True

    def start(self, *more: str, seconds: float = 30) -> int:
        return dockerd.start(
            self.state,
            ready=self.answers,
            options=(*self.options, *more),
            seconds=seconds,
        )


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    real = shutil.which("dockerd")
    if real is None:
        pytest.skip("no dockerd on this machine")
    # Unix sockets have short names: pytest's own folder is too deep.
    root = Path(tempfile.mkdtemp(prefix="mo-"))
    (root / "bin").mkdir()
    # A second dockerd in the machine's own network would meddle with the first one's bridge.
    wrapper = root / "bin" / "dockerd"
    wrapper.write_text(f'#!/bin/sh\nexec unshare --net --mount {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
    here = Place(root)
    yield here
    dockerd.stop(here.state)
    shutil.rmtree(root)


def test_it_is_started_once_outlives_ctrl_c_and_is_stopped(place: Place) -> None:
    pid = place.start()
    assert place.answers()
    assert dockerd.started_by_us(place.state) == "dockerd"
    # A session of its own, and none of our open files: not the project's lock, not our pipes.
    assert os.getsid(pid) == pid
    assert place.start() == pid
    dockerd.stop(place.state)
    assert dockerd.running_pid(place.state) == 0
    assert not place.answers()
    assert dockerd.started_by_us(place.state) == ""


@pytest.mark.parametrize(
    ("option", "words"),
    [("--storage-driver=nope", "driver not supported"), ("--no-such-flag", "no-such-flag")],
)
def test_one_that_dies_at_start_is_told_at_once_in_its_own_words(
    place: Place, option: str, words: str
) -> None:
    with pytest.raises(Refused) as refusal:
        place.start(option)
    assert refusal.value.code == "engine-died"
    assert words in refusal.value.cause
    assert "level=info" not in refusal.value.cause
    assert dockerd.started_by_us(place.state) == ""
    assert place.start() > 0  # and the next one is not held up by what it left


def test_one_that_does_not_get_ready_is_named_with_its_log(place: Place) -> None:
    with pytest.raises(MoorageError) as failure:
        dockerd.start(place.state, ready=lambda: False, options=place.options, seconds=2)
    assert failure.value.code == "engine-slow"
    assert failure.value.path.endswith("dockerd.log")
    assert dockerd.running_pid(place.state) > 0  # still ours to stop


def test_another_process_under_the_remembered_id_is_left_alone(place: Place) -> None:
    dockerd.remember(place.state, "dockerd")
    pid_file = place.state / "engine" / "dockerd.pid"
    with subprocess.Popen(["sleep", "60"]) as other:
        pid_file.write_text(f"{other.pid}\n")
        dockerd.stop(place.state)
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"how": '])
def test_a_torn_record_counts_as_none(place: Place, content: str) -> None:
    (place.state / "engine").mkdir(parents=True)
    (place.state / "engine" / "started.json").write_text(content)
    assert dockerd.started_by_us(place.state) == ""
