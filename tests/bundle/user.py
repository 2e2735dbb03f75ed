"""The same as somebody who is not root: first without sudo, then with it, to a pull by CRI.

Whatever of the user's folders is not his afterwards is named; his packages and files go again.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.bundle.bare import BareMachine
from tests.images.saying import timed

SUDO = "sudo.deb"
_TAR = "/srv/moorage.tar"
_UP = f"./run --bundle {_TAR} inv up --yes"
_BEGIN = f"mkdir moorage && cd moorage && tar -xf {_TAR} run && {_UP}"
# What the engine's own process keeps in the folder of the checkout; it is root's.
_ENGINES = {"dockerd.log", "dockerd.pid"}


def fetch_sudo(folder: Path) -> Path:
    """Debian's sudo, which is not in a bare system, and in no bundle."""
    path = folder / SUDO
    if not path.exists():
        subprocess.run(["apt-get", "-qq", "download", "sudo"], cwd=folder, check=True)
        (found,) = folder.glob("sudo_*.deb")
        found.rename(path)
    return path


def proved(machine: BareMachine) -> int:
    """How many nodes have pulled an image by CRI."""
    _root(machine, "for one in plain op; do useradd -m -s /bin/sh $one; done")
    _says(machine, "plain", _BEGIN, "there is no sudo here; cure: become root (su -)")
    assert "not installed" in machine.shell("dpkg -s python3").stderr
    _root(machine, f"dpkg -i /srv/{SUDO}")
    _root(machine, "echo 'op ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/op")
    said = _says(machine, "op", _BEGIN, "cure: sudo groupadd -f -r docker && sudo usermod")
    assert "installing python3-venv from /srv/moorage.tar, through sudo" in said
    assert _strangers(machine) == set()
    # The cure's own words; a new login has the group.
    _as(machine, "op", "sudo groupadd -f -r docker && sudo usermod -aG docker $USER")
    up = f"cd moorage && {_UP} --json"
    told = json.loads(timed(f"{_UP}, through sudo", _as, machine, "op", up))
    nodes = [host for host in told["hosts"] if host["pull_seconds"] is not None]
    assert told["ok"] and len(nodes) == 3, told
    assert _strangers(machine) <= _ENGINES
    again = json.loads(_as(machine, "op", "cd moorage && ./run inv up --yes --json"))
    assert not again["changed"], again
    _as(machine, "op", "cd moorage && ./run inv down --purge --yes")
    assert _strangers(machine) == set()
    assert "not installed" in machine.shell("dpkg -s docker.io").stderr
    _as(machine, "op", "rm -r moorage .cache")
    return len(nodes)


def _as(machine: BareMachine, user: str, command: str) -> str:
    return _root(machine, f"su - {user} <<'END'\n{command}\nEND")


def _root(machine: BareMachine, command: str) -> str:
    done = machine.shell(command)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _says(machine: BareMachine, user: str, command: str, words: str) -> str:
    """It ends with 2 and these words; all that it said."""
    done = machine.shell(f"su - {user} <<'END'\n{command}\nEND")
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr[-4000:]
    return done.stderr


def _strangers(machine: BareMachine) -> set[str]:
    """The names of what is not the user's in the user's home."""
    return set(_root(machine, "find /home/op ! -user op -printf '%f\\n'").split())
