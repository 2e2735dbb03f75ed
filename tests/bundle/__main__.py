"""From a bare Debian root, in a network namespace without a route, to images pulled by CRI.

Run by ``./run nox -s bundle``; `-- --folder=F` keeps what was made there, `--there` takes bundles
that are there, `--user` is somebody who is not root. It needs root, unshare and mmdebstrap; to make
the bundle, an engine that reaches a Debian mirror. Ends with
``bundle: N images, pulled by CRI without a route``.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bundle import bare, user
from tests.images.saying import say, timed
from tests.images.upstream import environment, upstream

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"team/app": 1, "library/nginx": 1, "team/later": 1}
LATER = "team/later:1"  # in the second bundle alone
CANARY = f"canary-{secrets.token_hex(16)}"


def main() -> int:
    """Returns the exit code."""
    words = _words()
    with ExitStack() as stack:
        made = words.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="bundle-"))
        folder = Path(made).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        file, second = folder / "moorage.tar", folder / "second.tar"
        if not words.there:
            _save(stack, folder, file, second)
        if words.save:
            return 0
        root = timed("a bare Debian root", bare.made, folder)
        if words.user:
            for one in (file, user.fetch_sudo(folder)):
                shutil.copy(one, root / "srv")
        else:
            for one in (file, second):
                shutil.copy(one, root / "root")
        with bare.running(root) as machine:
            count = user.proved(machine) if words.user else _proved(machine)
    what = f"{count} pulls, through sudo" if words.user else f"{count} images, pulled by CRI"
    say(f"bundle: {what} without a route")
    return 0


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default="", help="where all is made, and kept")
    parser.add_argument("--there", action="store_true", help="take the bundles that are in it")
    parser.add_argument("--save", action="store_true", help="make the bundles and end")
    parser.add_argument("--user", action="store_true", help="as somebody else than root")
    return parser.parse_args()


# -- where there is a network -------------------------------------------------------------------


def _save(stack: ExitStack, folder: Path, file: Path, second: Path) -> None:
    """Bundles of this commit, made in a clone of it, with images of a registry on loopback.

    The second is the difference to the first: one more image.
    """
    clone, home = folder / "clone", folder / "home"
    if not clone.exists():
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    for words in (["fetch", "-q", "origin", "HEAD"], ["reset", "-q", "--hard", "FETCH_HEAD"]):
        subprocess.run(["git", "-C", str(clone), *words], check=True)
    _hide_canaries(clone)
    os.environ.update(environment(home))
    there = stack.enter_context(upstream(folder / f"up{os.getpid()}", home, NAMES))
    all_of_them = [f"{there.name}/{name}" for name in there.digests]
    first = [name for name in all_of_them if not name.endswith(LATER)]
    save = [str(clone / "run"), "inv", "bundle.save", "--yes", "--json"]
    for path, names, more in ((file, first, []), (second, all_of_them, [f"--since={file}"])):
        (folder / "images.txt").write_text("\n".join(names) + "\n")
        argv = [*save, str(path), f"--images={folder / 'images.txt'}", *more]
        timed(f"bundle.save {' '.join(more)}", _inv, argv, clone)
        assert CANARY.encode() not in path.read_bytes(), f"a secret is in {path}"
        say(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    assert second.stat().st_size < file.stat().st_size / 10


def _hide_canaries(clone: Path) -> None:
    """Secrets where a checkout keeps them: none may travel."""
    for name in ("certs/ca.key", ".moorage/registry/password", "profiles/x/certs/ca.key"):
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CANARY)


def _inv(argv: list[str], folder: Path) -> dict[str, Any]:
    done = subprocess.run(argv, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout
    document: dict[str, Any] = json.loads(done.stdout)
    return document


# -- where there is none ------------------------------------------------------------------------


def _proved(machine: bare.BareMachine) -> int:
    """How many images nodes have pulled by CRI."""
    assert machine.shell("command -v python3").returncode != 0, "the root is not bare"
    there = "cd /root/moorage && "
    _shell(machine, f"mkdir -p /root/moorage && {there}tar -xf ../moorage.tar run")
    up = f"{there}./run --bundle ../moorage.tar inv up --yes --json"
    told = json.loads(timed("./run --bundle FILE inv up --yes", _shell, machine, up))
    assert told["ok"] and told["proven"], told
    nodes = [host for host in told["hosts"] if host["pull_seconds"] is not None]
    assert len(nodes) == 3, told["hosts"]
    again = json.loads(_shell(machine, f"{there}./run inv up --yes --json"))
    assert not again["changed"], again
    asked = _asked(machine, there, "moorage.tar")
    loaded = json.loads(_shell(machine, f"{there}./run inv bundle.load ../second.tar --json"))
    assert loaded["shared"] > 100, loaded
    _shell(machine, f"{there}./run inv image.mirror --from-bundle --yes --json")
    asked |= _asked(machine, there, "second.tar")
    held = json.loads(_shell(machine, f"{there}./run inv images.list --json"))
    assert set(asked.values()) <= {one["digest"] for one in held["images"]}, (asked, held)
    assert len(asked) == len(NAMES)
    for name in asked:
        _pulled(machine, there, name)
    assert not _shell(machine, "awk '$2 == \"00000000\"' /proc/net/route").strip()
    _shell(machine, f"{there}./run inv down --purge --yes --json")
    return len(asked) + 1


def _asked(machine: bare.BareMachine, there: str, file: str) -> dict[str, str]:
    """The digests of the images in a bundle, by reference."""
    shown = json.loads(_shell(machine, f"{there}./run inv bundle.show ../{file} --json"))
    return {one["reference"]: one["digest"] for one in shown["images"]}


def _pulled(machine: bare.BareMachine, there: str, name: str) -> None:
    """A node pulls an image that was asked for, as the kubelet would."""
    path, _, tag = name.replace(":", "_", 1).rpartition(":")
    settings = f"INVOKE_IMAGE_NAME={path} INVOKE_IMAGE_TAG={tag}"
    words = _shell(machine, f"{there}{settings} ./run inv nodes.verify --hosts=lab1 --json")
    (host,) = json.loads(words)["hosts"]
    assert host["pull_seconds"] is not None, host


def _shell(machine: bare.BareMachine, command: str) -> str:
    done = machine.shell(command)
    if done.stderr:
        print(done.stderr, end="", file=sys.stderr)  # noqa: T201 - a program of its own
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}"
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
