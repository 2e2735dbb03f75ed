"""A bare Debian in a network namespace without a route: a folder, mounts, and nothing else."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUITE = "bookworm"
# What a kernel gives a machine that was just started; the address of a bare one is its own alone.
_CLEAN = "/usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin"
_START = f"""\
set -eu
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
ip link set lo up
test -z "$(ip route)"
cd "$root"
mkdir -p run/outside
# Not chroot alone: what a container's process joins by its namespace begins at the very root.
pivot_root . run/outside
exec chroot . {_CLEAN} sh -c 'umount -l /run/outside && touch /run/bare && exec sleep infinity'
"""


class BareMachine:
    """It runs from the start of the block to its end; :meth:`shell` goes in."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def shell(self, command: str, *, timeout: float = 3600) -> subprocess.CompletedProcess[str]:
        """Runs a shell command there, with nothing of this machine's environment."""
        return subprocess.run(
            [
                *("nsenter", f"--target={self._pid}", "--mount", "--net", "--pid", "--uts"),
                *(*_CLEAN.split(), "sh", "-c", command),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def made(folder: Path) -> Path:
    """Debian's minimal system below ``folder``, without Python, as it is before anything was done.

    mmdebstrap makes it once; each call gives a fresh copy.
    """
    pristine, root = folder / "debian", folder / "root"
    if not (pristine / "etc" / "os-release").exists():
        argv = ["unshare", "--mount", "mmdebstrap", "--mode=root", "--variant=minbase"]
        subprocess.run([*argv, "--quiet", SUITE, str(pristine)], check=True)
        # Whatever could lead out is gone: no sources, no name server.
        for name in ("etc/apt/sources.list", "etc/resolv.conf"):
            (pristine / name).unlink(missing_ok=True)
    if root.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)
    subprocess.run(["cp", "-a", str(pristine), str(root)], check=True)
    return root


@contextmanager
def running(root: Path) -> Iterator[BareMachine]:
    """It has loopback alone, its own processes and mounts; all of it ends with the block."""
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--uts", "--kill-child"]
    with subprocess.Popen([*argv, "sh", "-c", _START, "sh", str(root)]) as outer:
        try:
            yield BareMachine(_ready(outer))
        finally:
            outer.kill()  # its child goes with it, and with that one all others of the namespace


def _ready(outer: subprocess.Popen[bytes]) -> int:
    """The first process of the namespace, once it has its own root."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    until = time.monotonic() + 30
    while time.monotonic() < until and outer.poll() is None:
        found = children.read_text().split()
        if found and Path(f"/proc/{found[0]}/root/run/bare").exists():
            return int(found[0])
        time.sleep(0.1)
    raise AssertionError("the bare machine did not start")
