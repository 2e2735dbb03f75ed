"""An engine for the tests that need one, as `inv up` would get it, and gone again afterwards.

``python -m tests.engine`` gets one that stays, and begins the build of Kubernetes in it: five
minutes of two cores that pass while other sessions wait for daemons. `nox -s k8s` joins it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import docker

from moorage.configuration import parsing
from moorage.docker import engine
from moorage.files import private_folder
from moorage.settings import Settings
from moorage.ui import UI

NAMESPACES = Path("/run/docker/netns")


@contextmanager
def running() -> Iterator[None]:
    """If no engine answers: installed, started, and stopped once nobody is within any more."""
    ours, ui = _settings(), UI(yes=True)
    with (private_folder(ours.state) / "tests-engine.lock").open("w") as users:
        started = _started(ours, ui, users)
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            if started:
                fcntl.flock(users, fcntl.LOCK_EX)
                engine.stop(ours, ui)


def _started(ours: Settings, ui: UI, users: IO[str]) -> bool:
    """Whether it was started here. One looks after that; the others wait until it answers."""
    while True:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(users, fcntl.LOCK_SH)
            if engine.answers(ours):
                return False
            fcntl.flock(users, fcntl.LOCK_UN)
            continue
        stood = engine.answers(ours)
        _ensure(ours, ui)
        return not stood


def _ensure(ours: Settings, ui: UI) -> None:
    if not engine.answers(ours) and not _running("dockerd", "containerd-shim"):
        _release(NAMESPACES)
    engine.ensure(ours, ui.progress)


def _release(namespaces: Path) -> None:
    """Gives back the network namespaces that an engine left when it was killed.

    Each has an address on docker0 still, and answers for it: a node of ours that is given the
    same one refuses connections then. An engine with the same data would clear them itself.
    """
    for left in sorted(namespaces.glob("*")):
        subprocess.run(["umount", str(left)], check=False, stderr=subprocess.DEVNULL)
        left.unlink(missing_ok=True)


def _running(*programs: str) -> bool:
    for name in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it ended meanwhile
            if name.read_text().startswith(programs):
                return True
    return False


def _settings() -> Settings:
    """The defaults, and the data folder that noxfile.py names for the tests' engine."""
    return parsing.parse({"engine": {"data": os.environ.get("INVOKE_ENGINE_DATA", "")}})


def bridge(client: docker.DockerClient) -> str:
    """This machine's address on a container's way out.

    Docker 20.10 tells no gateway of a bridge that it has made itself, until it is started again.
    """
    configured = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    return str(configured.get("Gateway") or configured["Subnet"].rpartition(".")[0] + ".1")


def main() -> None:
    from lab.kubernetes.programs import binaries, source

    ours, ui = _settings(), UI(yes=True)
    _ensure(ours, ui)
    if binaries.pending(ours):
        source.begin(ours, engine.connect(ours), ui)
        ui.say("Kubernetes is being built, in the background")


if __name__ == "__main__":
    main()
