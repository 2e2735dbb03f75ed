"""What goes into a bundle: a commit, the images asked for, nothing secret; what fails is named."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from moorage import references
from moorage.bundle import checkout, fetching, packages, packing, saving, system
from moorage.bundle.fetching import FetchWish
from moorage.errors import MoorageError, Refused
from moorage.images import outcome, skopeo
from moorage.settings import Settings
from moorage.supply.manifest import BundledImage
from moorage.ui import UI
from tests.images import upstream
from tests.images.upstream import Upstream
from tests.unit.bundle.made import CONTENT, INDEX, bundle, described, sha
from tests.unit.elsewhere import project

CANARY = "a-secret-of-this-checkout"


@pytest.fixture
def clone(tmp_path: Path) -> Settings:
    root = tmp_path / "clone"
    for name in ("run", "invoke.yaml", "requirements.lock"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("committed\n")
    (root / ".gitignore").write_text("/certs/\n/.moorage/\n")
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    return project(root)


def test_the_commit_goes_in_with_the_settings_as_they_are_and_no_secret(
    clone: Settings, tmp_path: Path
) -> None:
    for name in ("certs/ca.key", ".moorage/registry/password"):
        (clone.root / name).parent.mkdir(parents=True, exist_ok=True)
        (clone.root / name).write_text(CANARY)
    (clone.root / "invoke.yaml").write_text("registry: {host: other.io}\n")
    (tmp_path / "parts").mkdir()
    checkout.write(clone, checkout.commit(clone), tmp_path / "parts")
    with tarfile.open(tmp_path / "parts" / "repository.tar") as tar:
        assert set(tar.getnames()) == {".gitignore", "invoke.yaml", "requirements.lock", "run"}
    assert (tmp_path / "parts" / "invoke.yaml").read_text() == "registry: {host: other.io}\n"
    for path in (tmp_path / "parts").iterdir():
        assert CANARY.encode() not in path.read_bytes()


def test_a_change_that_is_in_no_commit_is_refused(clone: Settings, tmp_path: Path) -> None:
    (clone.root / "requirements.lock").write_text("changed\n")
    with pytest.raises(Refused) as told:
        checkout.commit(clone)
    assert told.value.code == "not-committed"
    assert "requirements.lock" in told.value.fault.cause
    with pytest.raises(Refused) as told:
        checkout.commit(project(tmp_path / "no-clone"))
    assert told.value.code == "not-committed"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "debian 12"),
        ("ID=ubuntu\nVERSION_ID=24.04", "ubuntu 24.04"),
        ("ID=debian\nVERSION_CODENAME=sid\n", "debian sid"),
        ("", "linux"),
    ],
)
def test_a_release_has_a_name(text: str, name: str) -> None:
    assert system.release(text) == name


def test_the_same_members_are_the_same_bundle(tmp_path: Path) -> None:
    first = bundle(tmp_path).read_bytes()
    (tmp_path / "parts" / "run").touch()
    assert bundle(tmp_path).read_bytes() == first


def test_a_bundle_is_summed_up_by_kind(tmp_path: Path) -> None:
    rows = {one.what: (one.count, one.size) for one in saving.summed(described(tmp_path))}
    assert rows == {
        "repository at this commit": (1, 3000),
        "wheels of the locks": (1, 2000),
        "packages": (1, 5000),
        "images for the engine": (1, 70_002),
        "images asked for": (1, len(INDEX)),
    }


def test_a_bundle_cannot_be_written_over_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent" / "x.tar"):
        with pytest.raises(Refused, match="cannot be written"):
            saving.require_place(path)


# -- images: skopeo, and a real registry on loopback --------------------------------------------

NAMES = {"team/app": 1, "library/nginx": 1}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key, value in upstream.environment(tmp_path / "home").items():
        monkeypatch.setenv(key, value)
    return tmp_path / "home"


def fetched(
    there: Upstream, folder: Path, *names: str, **wish: object
) -> list[outcome.ImageOutcome]:
    images = [references.parse(f"{there.name}/{name}") for name in names]
    settings = project(folder / "project")
    with skopeo.access(settings, None) as allowed:
        wanted = FetchWish(**wish)  # type: ignore[arg-type]
        return fetching.fetch(images, allowed, wanted, folder, UI().progress)


def test_images_come_whole_and_go_on_from_what_is_there(tmp_path: Path, home: Path) -> None:
    with upstream.upstream(tmp_path / "up", home, NAMES) as there:
        found = fetched(there, tmp_path, "team/app:1", "absent:1", "library/nginx:1")
        assert [one.fault.code if one.fault else "" for one in found] == ["", "image-missing", ""]
        note = fetching.noted(tmp_path, references.parse(f"{there.name}/team/app:1"))
        assert note is not None
        assert note.digest == there.digests["team/app:1"]
        # An index, three manifests and configurations, three layers and the one that they share.
        assert len(note.blobs) == 1 + 3 + 3 + 3 + 1
        for path in note.paths:
            assert sha((tmp_path / path).read_bytes()) == Path(path).name
        before = len(there.requests())
        assert not any(one.changed for one in fetched(there, tmp_path, "team/app:1"))
        assert not [one for one in there.requests()[before:] if "/blobs/" in one]
        (tmp_path / note.paths[0]).unlink()
        assert fetched(there, tmp_path, "team/app:1")[0].changed


def test_a_tag_that_moved_is_named_until_it_is_asked_for(tmp_path: Path, home: Path) -> None:
    with upstream.upstream(tmp_path / "up", home, NAMES) as there:
        name = f"{there.name}/team/app:1"
        first = BundledImage(name, f"sha256:{'1' * 64}", ())
        (one,) = fetched(there, tmp_path, "team/app:1", before={name: first})
        assert one.fault is not None
        assert one.fault.code == "tag-moved"
        assert "the first bundle has" in one.fault.message
        again = fetched(there, tmp_path, "team/app:1", before={name: first}, update=True)
        assert again[0].digest == there.digests["team/app:1"]
        same = replace(first, digest=there.digests["team/app:1"])
        (tmp_path / "other").mkdir()
        (one,) = fetched(there, tmp_path / "other", "team/app:1", before={name: same})
        assert (one.fault, one.changed) == (None, False)
        assert not (tmp_path / "other" / "images").exists()


def test_a_platform_that_is_not_there_and_a_stranger_are_named(tmp_path: Path, home: Path) -> None:
    with upstream.upstream(tmp_path / "up", home, NAMES, trusted=False) as there:
        (one,) = fetched(there, tmp_path, "team/app:1")
        assert one.fault is not None
        assert one.fault.code == "x509-unknown-authority"
    with upstream.upstream(tmp_path / "up2", home, NAMES) as there:
        (one,) = fetched(there, tmp_path, "team/app:1", platform="linux/ppc64le")
        assert one.fault is not None
        assert one.fault.code == "wrong-platform"
        (one,) = fetched(there, tmp_path, "team/app:1", platform="linux/arm64")
        assert one.fault is None
        note = fetching.noted(tmp_path, references.parse(f"{there.name}/team/app:1"))
        assert note is not None
        assert len(note.blobs) == 4  # a manifest, a configuration, two layers


def test_a_full_disk_is_named_with_where_to_make_room(
    tmp_path: Path, home: Path, small_disk: Path
) -> None:
    with upstream.upstream(tmp_path / "up", home, NAMES, size=100_000) as there:
        (one,) = fetched(there, small_disk, "team/app:1")
        assert one.fault is not None
        assert one.fault.code == "disk-full"
        assert f"df -h {small_disk}" in one.fault.cure
        subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
        assert fetched(there, small_disk, "team/app:1")[0].fault is None


def test_a_full_disk_under_the_packages_is_named_with_where_to_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = MoorageError("disk-full", "apt-get download failed", cure="df -h / /var; apt-get clean")

    def fetch(*_: object) -> None:
        raise full

    monkeypatch.setattr(packages, "needed", lambda _: [])
    monkeypatch.setattr(packages, "fetch", fetch)
    with pytest.raises(MoorageError) as told:
        saving._packages(tmp_path, None)
    assert f"df -h {tmp_path}" in told.value.cure


def test_a_part_that_is_another_than_its_name_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "version").write_text("Directory Transport Version: 1.1\n")
    (copy / "manifest.json").write_bytes(INDEX)
    (copy / ("1" * 64)).write_bytes(b"another")
    image = references.parse("quay.io/team/app:1")
    with pytest.raises(MoorageError) as told:
        fetching.taken_apart(image, f"sha256:{sha(INDEX)}", copy, tmp_path)
    assert told.value.code == "digest-changed"
    assert not (tmp_path / "images").exists()


def test_the_bytes_of_a_first_bundle_are_left_out(tmp_path: Path) -> None:
    first = packing.opened(bundle(tmp_path))
    packing.pack(tmp_path / "second.tar", first.manifest, tmp_path / "parts", first.manifest.files)
    assert [one.name for one in packing.members(tmp_path / "second.tar")] == []
    assert len(packing.opened(tmp_path / "second.tar").manifest.files) == len(CONTENT)
