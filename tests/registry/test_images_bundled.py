"""Images through a bundle, between real registries on loopback: the other side asks nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moorage import references
from moorage.bundle import fetching, loading, packing
from moorage.bundle.fetching import FetchWish
from moorage.catalogue import lists
from moorage.errors import Refused
from moorage.images import mirroring, skopeo
from moorage.images.mirroring import MirrorWish
from moorage.registry import client
from moorage.registry.logins.credentials import credentials
from moorage.settings import ROOT
from moorage.supply import manifest
from moorage.ui import UI
from tests.images import upstream
from tests.loopback import Loopback, loopback
from tests.registry.program import Registry, descriptor, digest_of
from tests.unit.bundle.made import CONTENT, described
from tests.unit.elsewhere import project, registry_project

DOCKER = "application/vnd.docker.distribution.manifest"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in upstream.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "home"


@pytest.fixture
def ours(sockets: Path, home: Path) -> Iterator[Loopback]:
    for name in manifest.LOCKS:
        if name.startswith("serve"):
            continue  # the project links to the whole folder
        path = sockets / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
    with loopback(registry_project(sockets)) as running:
        yield running


def docker_image(folder: Path, name: str) -> str:
    """An image of two platforms as Docker made them before OCI, as tag 1 -> its digest."""
    registry = Registry(folder / "data")
    registry.start()
    try:
        layer, rows = upstream._layer("own", b"content"), []
        for machine in ("amd64", "arm64"):
            words = {"os": "linux", "architecture": machine}
            ids = {"type": "layers", "diff_ids": [digest_of(layer)]}
            config = json.dumps({**words, "rootfs": ids}).encode()
            assert all(registry.push_blob(name, part) for part in (config, layer))
            kinds = ("application/vnd.docker.container.image.v1+json",
                     "application/vnd.docker.image.rootfs.diff.tar")  # fmt: skip
            one = {"schemaVersion": 2, "mediaType": f"{DOCKER}.v2+json",
                   "config": descriptor(config, kinds[0]),
                   "layers": [descriptor(layer, kinds[1])]}  # fmt: skip
            content = json.dumps(one).encode()
            assert (
                registry.push_manifest(name, digest_of(content), content, f"{DOCKER}.v2+json")
                == 201
            )
            rows.append(descriptor(content, f"{DOCKER}.v2+json", platform=words))
        index = {"schemaVersion": 2, "mediaType": f"{DOCKER}.list.v2+json", "manifests": rows}
        content = json.dumps(index).encode()
        assert registry.push_manifest(name, "1", content, f"{DOCKER}.list.v2+json") == 201
        return digest_of(content)
    finally:
        registry.kill()


def carried(folder: Path, *names: str) -> Path:
    """A bundle with these images, fetched by skopeo."""
    parts = folder / "parts"
    images = [references.parse(name) for name in names]
    one = described(parts, CONTENT)
    with skopeo.access(project(folder / "other"), None) as allowed:
        found = fetching.fetch(images, allowed, FetchWish(), parts, UI().progress)
    assert not any(outcome.fault for outcome in found)
    held = tuple(filter(None, (fetching.noted(parts, image) for image in images)))
    paths = sorted({path for image in held for path in image.paths})
    files = (*one.files, *packing.described(parts, paths))
    packing.pack(folder / "x.tar", replace(one, files=files, images=held), parts, ())
    return folder / "x.tar"


def test_images_land_by_their_digest_while_their_registry_is_gone(
    ours: Loopback, home: Path, tmp_path: Path
) -> None:
    with upstream.upstream(tmp_path / "up", home, {"team/app": 1}) as there:
        digest = there.digests["team/app:1"]
        name = f"{there.name}/team/app"
        older = f"{there.name}/team/old:1"
        dockers = docker_image(tmp_path / "up", "team/old")
        file = carried(tmp_path, f"{name}:1", f"{name}@{digest}", older)
    with pytest.raises(Refused, match="no images can be read from the bundle"):
        lists.of_bundle(ours.settings)
    loading.load(ours.settings, file, UI().progress)
    wanted = lists.of_bundle(ours.settings)
    assert [str(one) for one in wanted] == [f"{name}:1", f"{name}@{digest}", older]
    found = mirroring.mirror(ours.settings, wanted, "", MirrorWish(), UI())
    assert [one.fault for one in found] == [None, None, None]
    login = credentials(ours.settings)
    for one, right in zip(found, (digest, digest, dockers), strict=True):
        landed = references.parse(one.landed)
        got = client.manifest_digest(ours.settings, login, landed.repository, landed.version)
        assert got == one.digest == right
    assert not any(
        one.changed for one in mirroring.mirror(ours.settings, wanted, "", MirrorWish(), UI())
    )
