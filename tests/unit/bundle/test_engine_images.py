"""Images out of an engine's archive and back into one: each layer once, always the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from moorage.bundle import engine_images
from moorage.docker import supplied
from moorage.errors import MoorageError
from moorage.output import unheard

LAYERS = (b"one" * 30_000, b"two" * 10)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive(path: Path, *, linked: bool = False, packed: bool = False) -> Path:
    """As `docker save` writes it; ``linked``: a layer that is a link to another's file."""
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{digest(one)}" for one in LAYERS]}})
    names = ["a/layer.tar", "b/layer.tar"]
    row = {"Config": "c.json", "RepoTags": None, "Layers": names}
    with tarfile.open(path, "w") as tar:
        for name, layer in zip(names, LAYERS, strict=True):
            info = tarfile.TarInfo(name)
            content = gzip.compress(layer) if packed else layer
            if linked and name == names[1]:
                real = tarfile.TarInfo("z/layer.tar")
                real.size = len(content)
                info.type, info.linkname = tarfile.SYMTYPE, "../z/layer.tar"
                tar.addfile(info)
                tar.addfile(real, io.BytesIO(content))
                continue
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, text in (("c.json", config), ("manifest.json", json.dumps([row]))):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_an_image_becomes_layers_and_an_archive_again(
    tmp_path: Path, linked: bool, packed: bool
) -> None:
    saved = archive(tmp_path / "x.tar", linked=linked, packed=packed)
    image = engine_images.unpacked("moorage/x:1", saved, tmp_path)
    assert [gzip.decompress((tmp_path / one).read_bytes()) for one in image.layers] == [*LAYERS]
    content = b"".join(supplied.archive(image, tmp_path))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        (row,) = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert row["RepoTags"] == ["moorage/x:1"]
        layers = [tar.extractfile(one).read() for one in row["Layers"]]  # type: ignore[union-attr]
        assert [gzip.decompress(one) for one in layers] == [*LAYERS]
        assert tar.extractfile(row["Config"]) is not None


def test_the_same_layer_is_the_same_bytes(tmp_path: Path) -> None:
    saved = archive(tmp_path / "x.tar")
    found = []
    for name in ("one", "two"):
        image = engine_images.unpacked("moorage/x:1", saved, tmp_path / name)
        found.append([(tmp_path / name / one).read_bytes() for one in image.layers])
    assert found[0] == found[1]


def test_what_a_first_bundle_has_is_not_written_again(tmp_path: Path) -> None:
    saved = archive(tmp_path / "x.tar")
    first = engine_images.unpacked("moorage/x:1", saved, tmp_path / "first")
    number = Path(first.config).stem

    class Image:
        """A stand-in for the SDK's."""

        id = f"sha256:{number}"

        def save(self, **_words: object) -> list[bytes]:
            return [saved.read_bytes()]

    client = SimpleNamespace(images=SimpleNamespace(get=lambda _name: Image()))
    for before, written in (((first,), False), ((), True)):
        folder = tmp_path / str(written)
        folder.mkdir()
        found = engine_images.save(client, ["moorage/x:1"], folder, unheard, before)  # type: ignore[arg-type]
        assert found == (first,)
        assert (folder / first.layers[0]).exists() == written


def test_an_archive_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)
    with pytest.raises(MoorageError, match="moorage/x:1 could not be taken out") as told:
        engine_images.unpacked("moorage/x:1", tmp_path / "x.tar", tmp_path)
    assert told.value.cure == "try it by hand: docker save moorage/x:1"
