"""The index of platforms for real: built twice, pushed, listed; each member looked into and run.

The member of another architecture is run by Debian's qemu-user-static. It needs Debian's archive,
and root for chroot and namespaces.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moorage.catalogue import listing
from moorage.images import demo
from moorage.platforms import PLATFORMS
from moorage.registry.storage.opened import opened
from moorage.settings import ImageSettings
from moorage.ui import UI
from tests.debian import unpacked
from tests.loopback import Loopback
from tests.unit.elsewhere import registry_project

NAMES = ("linux/amd64", "linux/arm64")
# https://www.sco.com/developers/gabi/latest/ch4.eheader.html
MACHINES = {"linux/amd64": 62, "linux/arm64": 183}
EMULATORS = {"linux/amd64": "qemu-x86_64-static", "linux/arm64": "qemu-aarch64-static"}
# In namespaces of its own: $1 is the root, the words behind it the program.
RUN = """
root=$1; shift
hostname quay; ip link set lo up; mount -t proc proc "$root/proc"
chroot --userspec=65532:65532 "$root" "$@" &
until chroot "$root" $PYTHON -c "import urllib.request as u
print(u.urlopen('http://127.0.0.1:8080/').read().decode().strip())" 2>/dev/null; do
    kill -0 $! || exit 1; sleep 0.2
done
kill $!; wait $! 2>/dev/null; exit 0
"""


def proved(folder: Path, ours: Loopback) -> list[str]:
    """What was seen, a line each; an AssertionError for what is not as it has to be."""
    image = ImageSettings(platforms=NAMES)
    elsewhere = registry_project(_made(folder / "elsewhere"))
    settings = [replace(one, image=image) for one in (ours.settings, elsewhere)]
    began = time.monotonic()
    first, second = (demo.build(one, _no_engine, UI(yes=True).progress) for one in settings)
    said = [f"two builds: {time.monotonic() - began:.0f} s, {first.image_id}"]
    assert first.image_id == second.image_id, (first, second)
    began = time.monotonic()
    assert not demo.build(settings[0], _no_engine, UI().progress).changed
    said.append(f"a third that has nothing to do: {time.monotonic() - began:.2f} s")
    pushed = demo.push(settings[0], _no_engine, UI(yes=True).progress)
    assert pushed.digest == first.image_id
    assert not demo.push(settings[0], _no_engine, UI(yes=True).progress).changed
    (held,) = listing.repositories(opened(ours.settings), "serve_hostname")
    platforms = listing.platforms(opened(ours.settings), held, pushed.digest)
    assert platforms == NAMES, platforms
    said.append(f"pushed and listed: {', '.join(platforms)}")
    for name in NAMES:
        root = folder / name.replace("/", "-")
        config = unpack(Path(first.layout), name, root)
        said.append(f"{name}: {look(root, MACHINES[name])} ELF files, each whole")
        if os.geteuid() == 0:
            seconds, answer = run(root, name, config)
            assert answer == "quay", answer
            said.append(f"{name}: GET / answers {answer} after {seconds:.1f} s")
    return said


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _no_engine() -> Any:
    raise AssertionError("an engine was asked for")


def unpack(layout: Path, name: str, root: Path) -> Mapping[str, Any]:
    """The layers of one platform below ``root``; returns the image's configuration."""

    def blob(row: Mapping[str, Any]) -> Path:
        return layout / "blobs/sha256" / str(row["digest"]).removeprefix("sha256:")

    (listed,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    rows = json.loads(blob(listed).read_bytes())["manifests"]
    wanted = PLATFORMS[name].described
    (row,) = (one for one in rows if one["platform"] == wanted)
    manifest = json.loads(blob(row).read_bytes())
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer)) as tar:
            tar.extractall(root, filter="fully_trusted")  # noqa: S202 - made by us
    config: dict[str, Any] = json.loads(blob(manifest["config"]).read_bytes())
    assert {key: config[key] for key in wanted} == wanted
    return config


# -- ELF of 64 bits: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html ----------------


def look(root: Path, machine: int) -> int:
    """How many ELF files there are: each of ``machine``, its interpreter and libraries there."""
    libraries = {path.name for path in root.rglob("*.so*") if path.is_file()}
    found = 0
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.read_bytes()[:4] != b"\x7fELF":
            continue
        found += 1
        content = path.read_bytes()
        assert struct.unpack_from("<H", content, 18)[0] == machine, path
        interpreter, needed = wants(content)
        if interpreter:
            assert _inside(root, interpreter).is_file(), (path, interpreter)
        assert set(needed) <= libraries, (path, set(needed) - libraries)
    assert found > 50, found
    return found


def wants(content: bytes) -> tuple[str, list[str]]:
    """The interpreter of an ELF file, and its DT_NEEDED."""
    (offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    heads = [struct.unpack_from("<IIQQQQ", content, offset + i * size) for i in range(count)]
    loads = [(virtual, start, length) for kind, _, start, virtual, _, length in heads if kind == 1]
    interpreter, needed, table = "", [], 0
    for kind, _, start, _, _, length in heads:
        if kind == 3:
            interpreter = content[start : start + length].rstrip(b"\0").decode()
        if kind == 2:
            rows = list(struct.iter_unpack("<QQ", content[start : start + length]))
            needed = [value for tag, value in rows if tag == 1]
            table = next(value for tag, value in rows if tag == 5)
    (base,) = [s + table - v for v, s, n in loads if v <= table < v + n][:1] or [0]
    names = [content[base + at : content.index(b"\0", base + at)].decode() for at in needed]
    return interpreter, names


def _inside(root: Path, name: str) -> Path:
    """A path of the root with its links followed within the root."""
    path = root
    for word in Path(name.lstrip("/")).parts:
        path /= word
        while path.is_symlink():
            target = str(path.readlink())
            path = root / target.lstrip("/") if target.startswith("/") else path.parent / target
    return path


# -- run ------------------------------------------------------------------------------------------


def run(root: Path, name: str, config: Mapping[str, Any]) -> tuple[float, str]:
    """Starts the image's command in namespaces; (seconds until it answered, what it said)."""
    python = "/usr/bin/python3"
    prefix: list[str] = []
    if PLATFORMS[name].machine != platform.machine():
        emulator = EMULATORS[name]
        shutil.copy(unpacked("qemu-user-static") / "usr/bin" / emulator, root / emulator)
        prefix = [f"/{emulator}"]
    runs = config["config"]
    command = [*prefix, python, *runs["Entrypoint"][1:]]
    environment = dict(one.split("=", 1) for one in runs["Env"])
    environment["PYTHON"] = " ".join([*prefix, python])
    argv = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child"]
    argv += ["sh", "-c", RUN, "sh", str(root), *command]
    (root / "proc").mkdir(exist_ok=True)
    began = time.monotonic()
    done = subprocess.run(argv, env=environment, capture_output=True, timeout=120, check=False)
    lines = list(_said(done.stdout))
    assert lines and "listens on port 8080" in lines[0], (lines, done.stderr[-2000:])
    return time.monotonic() - began, lines[-1]


def _said(output: bytes) -> Iterator[str]:
    yield from output.decode().split("\n")[:-1]
