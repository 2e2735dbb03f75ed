"""The index of the demo image: what is in it, the same each time; a failure changes nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any, cast

import pytest

from moorage import images, platforms
from moorage.actions import Action
from moorage.docker import apt, bootstrap
from moorage.errors import MoorageError, Refused
from moorage.images import BuiltImage, demo, wheels
from moorage.images.demo import base, bytecode, index, layout, tree
from moorage.images.demo.base import Base
from moorage.settings import ROOT, ImageSettings, Settings
from moorage.ui import UI
from tests.unit.elsewhere import project

BOTH = ("linux/amd64", "linux/arm64")
LOCK = ROOT / "serve_hostname" / "requirements.lock"
# pip 26 of uvloop, whose wheels are for two architectures; and of an index that does not answer.
ABSENT = b"""\
ERROR: Could not find a version that satisfies the requirement uvloop==0.23.0 (from versions: none)
ERROR: No matching distribution found for uvloop==0.23.0
"""
UNREACHED = b"""\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after \
connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPConnection object at \
0x7fdb22a68710>: Failed to establish a new connection: [Errno 111] Connection refused')': /simple/a/
ERROR: Could not find a version that satisfies the requirement aiohttp==3.14.5 (from versions: none)
ERROR: No matching distribution found for aiohttp==3.14.5
"""
FULL = b"ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for Debian's archive, its Python and the package index."""

    def layer(self: Base, progress: object) -> tree.PackedLayer:
        del progress
        self.folder.mkdir(parents=True, exist_ok=True)
        return tree.pack({"etc": tree.file(self.platform.debian.encode())}, self.path)

    def compiled(root: Path, sources: tree.Tree, work: Path) -> tree.Tree:
        del root, work
        return {f"{name}c": tree.file(b"code") for name in sources if name.endswith(".py")}

    def unpacked(lock: Path, target: wheels.Interpreter, cache: Path, **_: object) -> Any:
        del lock, cache
        return {"aiohttp/web.py": b"", "uvloop/loop.so": target.machine.encode()}

    monkeypatch.setattr(Base, "layer", layer)
    monkeypatch.setattr(bytecode, "unpack", lambda base, folder: folder)
    monkeypatch.setattr(bytecode, "compiled", compiled)
    monkeypatch.setattr(wheels, "unpacked", unpacked)
    monkeypatch.setattr(apt, "install", lambda *_: None)


def asked(root: Path, *names: str, **image: str) -> Settings:
    root.mkdir(exist_ok=True)
    if not (root / "serve_hostname").exists():
        (root / "serve_hostname").mkdir()
        for name in ("app.py", "requirements.lock"):
            (root / "serve_hostname" / name).write_bytes(
                (ROOT / "serve_hostname" / name).read_bytes()
            )
    return project(root, image=ImageSettings(platforms=names or BOTH, **image))


def build(settings: Settings) -> BuiltImage:
    return demo.build(settings, no_engine, UI().progress)


def no_engine() -> Any:
    raise AssertionError("an engine was asked for")


def read(folder: Path, digest: str) -> Any:
    return json.loads((folder / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes())


def test_each_platform_has_its_base_its_wheels_and_the_command(tmp_path: Path) -> None:
    built = build(asked(tmp_path))
    assert built.changed
    assert built.platforms == BOTH
    folder = Path(built.layout)
    rows = read(folder, built.image_id)["manifests"]
    assert [row["platform"]["architecture"] for row in rows] == ["amd64", "arm64"]
    for row, machine, debian in zip(rows, ("x86_64", "aarch64"), ("amd64", "arm64"), strict=True):
        manifest = read(folder, row["digest"])
        config = read(folder, manifest["config"]["digest"])
        assert config["architecture"] == debian
        assert config["config"] == index.RUNS
        contents = [contents_of(folder, layer["digest"]) for layer in manifest["layers"]]
        assert contents[0] == {"etc": debian.encode()}
        assert contents[1]["opt/serve_hostname/site-packages/uvloop/loop.so"] == machine.encode()
        assert contents[1]["opt/serve_hostname/app.pyc"] == b"code"
        assert b"serve_hostname listens" in contents[1]["opt/serve_hostname/app.py"]
        sizes = [layer["size"] for layer in manifest["layers"]]
        blobs = [folder / "blobs/sha256" / one["digest"][7:] for one in manifest["layers"]]
        assert sizes == [blob.stat().st_size for blob in blobs]
    (listed,) = json.loads((folder / "index.json").read_bytes())["manifests"]
    assert listed["annotations"]["io.containerd.image.name"] == built.reference


def contents_of(folder: Path, digest: str) -> dict[str, bytes]:
    found = {}
    with tarfile.open(folder / "blobs/sha256" / digest.removeprefix("sha256:")) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
    return found


def test_the_same_sources_are_the_same_digests_in_every_checkout(tmp_path: Path) -> None:
    first, second = build(asked(tmp_path / "a")), build(asked(tmp_path / "b"))
    assert first.image_id == second.image_id
    again = build(asked(tmp_path / "a"))
    assert not again.changed
    assert (again.image_id, again.platforms) == (first.image_id, BOTH)


def test_what_goes_in_decides_whether_it_is_built_again(tmp_path: Path) -> None:
    first = build(asked(tmp_path))
    app = tmp_path / "serve_hostname" / "app.py"
    app.write_bytes(app.read_bytes() + b"\n")
    assert build(asked(tmp_path)).image_id != first.image_id
    app.write_bytes(app.read_bytes()[:-1])
    assert build(asked(tmp_path)).image_id == first.image_id
    assert build(asked(tmp_path, "linux/arm64")).platforms == ("linux/arm64",)


def test_it_runs_as_the_dockerfile_says() -> None:
    text = (ROOT / "serve_hostname" / "Dockerfile").read_text().replace("\\\n", "")
    said = dict(re.findall(r"^(ENV|USER|EXPOSE|WORKDIR|ENTRYPOINT|HEALTHCHECK) (.*)$", text, re.M))
    runs = index.RUNS
    assert said["ENV"].split() == runs["Env"][1:]
    assert said["USER"] == runs["User"]
    assert {f"{said['EXPOSE']}/tcp": {}} == runs["ExposedPorts"]
    assert said["WORKDIR"] == runs["WorkingDir"]
    assert json.loads(said["ENTRYPOINT"]) == runs["Entrypoint"]
    times, _, command = said["HEALTHCHECK"].partition(" CMD ")
    health = runs["Healthcheck"]
    assert ["CMD", *json.loads(command)] == health["Test"]
    seconds = [int(one) for one in re.findall(r"=(\d+)s", times)]
    keys = ("Interval", "Timeout", "StartPeriod")
    assert [second * 10**9 for second in seconds] == [health[key] for key in keys]


@pytest.mark.parametrize(
    ("said", "kind", "code", "cure"),
    [
        (ABSENT, Refused, "no-wheels", "leave linux/s390x out"),
        (UNREACHED, MoorageError, "no-wheels", "index reachable"),
        (FULL, MoorageError, "disk-full", "make room"),
    ],
)
def test_why_a_wheel_is_missing(
    said: bytes, kind: type[MoorageError], code: str, cure: str
) -> None:
    target = base.interpreter(platforms.PLATFORMS["linux/s390x"])
    problem = wheels.unfetched(LOCK, target, said, "linux/s390x")
    assert type(problem) is kind
    assert problem.code == code
    assert cure in problem.cure
    if kind is Refused:
        assert "uvloop==0.23.0 for Python 3.11 on linux/s390x" in str(problem)
        # A loaded bundle has the wheels of one platform: nobody knows of others then.
        bundled = wheels.unfetched(LOCK, target, said, "linux/s390x", asked=False)
        assert type(bundled) is MoorageError


def test_the_platform_without_a_wheel_is_not_in_the_cure() -> None:
    target = wheels.Interpreter((3, 11), "aarch64", "2.36")
    cure = wheels.unfetched(LOCK, target, ABSENT, "linux/arm64").cure
    assert cure == "leave linux/arm64 out: inv image.build --platform=linux/amd64"


def fails(problem: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise problem

    return fail


@pytest.mark.parametrize(
    ("place", "name", "problem", "code"),
    [
        (wheels, "unpacked", Refused("no-wheels", "there is no wheel"), "no-wheels"),
        (Base, "layer", MoorageError("no-debian-base", "unreachable"), "no-debian-base"),
        (layout.LayoutWriter, "packed", OSError(errno.ENOSPC, "No space left"), "disk-full"),
        (layout.LayoutWriter, "close", OSError(errno.EDQUOT, "Disk quota exceeded"), "disk-full"),
    ],
)
def test_what_fails_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: object,
    name: str,
    problem: Exception,
    code: str,
) -> None:
    before = build(asked(tmp_path, "linux/amd64"))
    kept = sorted(os.walk(before.layout))
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fails(problem))
        with pytest.raises(MoorageError) as failure:
            build(asked(tmp_path))
    assert failure.value.code == code
    assert sorted(os.walk(before.layout)) == kept
    found = index.built(asked(tmp_path))
    assert found is not None
    assert found.digest == before.image_id
    assert not [path for path in (tmp_path / ".moorage/image").iterdir() if "draft" in path.name]


def test_a_missing_wheel_is_told_before_debian_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "unpacked", fails(Refused("no-wheels", "there is no wheel")))
    monkeypatch.setattr(Base, "layer", fails(AssertionError("Debian was asked")))
    with pytest.raises(Refused, match="no wheel"):
        build(asked(tmp_path, "linux/amd64", "linux/s390x"))


def test_somebodys_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be based on python:3") as refusal:
        build(asked(tmp_path, base="python:3.13"))
    assert "image.base: auto" in refusal.value.cure
    with pytest.raises(Refused):
        demo.pending(asked(tmp_path, base="python:3.13"))


# -- what image.push pushes ---------------------------------------------------------------------


def test_the_image_that_was_built_last_is_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(asked(tmp_path))
    plain = project(tmp_path)  # as `inv image.push` after `inv image.build --platform=...`
    assert index.built(plain) is not None
    monkeypatch.setattr(images, "build", lambda *_: BuiltImage("it", "sha256:1", changed=False))
    monkeypatch.setattr(images, "push", lambda *_: images.PushedImage("it", "sha256:1", True))
    engine = cast("Any", lambda: None)
    demo.build(plain, engine, UI().progress)
    assert index.built(plain) is None
    assert demo.push(plain, engine, UI().progress).digest == "sha256:1"


def test_an_index_that_is_wished_and_not_built_is_not_replaced_by_the_engines(
    tmp_path: Path,
) -> None:
    with pytest.raises(Refused, match="no index") as refusal:
        demo.push(asked(tmp_path), no_engine, UI().progress)
    assert refusal.value.code == "no-image"
    build(asked(tmp_path))
    with pytest.raises(Refused, match="no index"):  # under another name it is not the demo image
        demo.push(asked(tmp_path, tag="2"), no_engine, UI().progress)


@pytest.mark.parametrize("spoilt", ["index.json", "blobs"])
def test_half_a_layout_is_built_again(tmp_path: Path, spoilt: str) -> None:
    built = build(asked(tmp_path))
    path = Path(built.layout) / spoilt
    if spoilt == "blobs":
        path /= f"sha256/{built.image_id.removeprefix('sha256:')}"
    path.write_text("{")
    assert index.built(asked(tmp_path)) is None
    assert build(asked(tmp_path)).image_id == built.image_id


def test_tools_are_asked_for_only_if_something_has_to_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Action("install mmdebstrap", asks=True)
    monkeypatch.setattr(bootstrap, "pending", lambda *, installs: [] if installs else [wanted])
    assert demo.pending(asked(tmp_path)) == [wanted]
    assert demo.pending(project(tmp_path)) == []
    build(asked(tmp_path))
    assert demo.pending(asked(tmp_path)) == []
