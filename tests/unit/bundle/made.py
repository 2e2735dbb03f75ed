"""A small bundle for tests: true in form, with a few bytes of each kind of thing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from moorage.bundle import checkout, packing, system
from moorage.files import private_folder
from moorage.settings import ROOT, Settings
from moorage.supply.manifest import LOCKS, BundledImage, BundleManifest, EngineImage
from tests.unit.elsewhere import project

INDEX = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
CONTENT = {
    "run": b"#!/bin/sh\n",
    "repository.tar": b"r" * 3000,
    "wheels/own/a-1-py3-none-any.whl": b"w" * 2000,
    "debs/Packages": b"Package: a\n",
    "debs/a_1_all.deb": b"d" * 5000,
    "engine/configs/c.json": b"{}",
    "engine/layers/l.tar.gz": b"l" * 70_000,
    f"images/blobs/sha256/{hashlib.sha256(INDEX).hexdigest()}": INDEX,
}
REFERENCE = "quay.io/team/app:1"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def with_locks(folder: Path) -> Settings:
    """Settings of a checkout that has this one's lock files, and nothing else of it."""
    for name in LOCKS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
    return project(folder)


def described(parts: Path, content: dict[str, bytes] | None = None) -> BundleManifest:
    """The files of ``content`` below ``parts``, and their manifest: of this system and checkout."""
    content = content or CONTENT
    for name, said in content.items():
        private_folder((parts / name).parent)
        (parts / name).write_bytes(said)
    image = BundledImage(REFERENCE, f"sha256:{sha(INDEX)}", (sha(INDEX),))
    return BundleManifest(
        version="0.1.0",
        commit="c" * 40,
        system=system.here(),
        files=packing.described(parts, content),
        packages=("a",),
        locks=checkout.locks(ROOT),
        engine=(EngineImage("moorage/x:1", "engine/configs/c.json", ("engine/layers/l.tar.gz",)),),
        images=(image,),
    )


def bundle(folder: Path, content: dict[str, bytes] | None = None) -> Path:
    """A whole bundle of ``content``."""
    path = folder / "moorage.tar"
    packing.pack(path, described(folder / "parts", content), folder / "parts", ())
    return path


def difference(folder: Path, first: Path, content: dict[str, bytes]) -> Path:
    """A bundle of ``content`` without what ``first`` has."""
    before, path = packing.opened(first), folder / "second.tar"
    one = replace(described(folder / "more", content), since=before.id)
    packing.pack(path, one, folder / "more", before.manifest.files)
    return path


def flipped(path: Path, content: bytes) -> Path:
    """A copy of a bundle with one byte changed in the middle of ``content``."""
    found = bytearray(path.read_bytes())
    found[found.index(content) + len(content) // 2] ^= 1
    other = path.with_name("flipped.tar")
    other.write_bytes(found)
    return other
