"""Images in, by Debian's skopeo, between real registries on loopback: pushed and mirrored."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.formats import hosts_toml, registries_conf
from moorage import commands, references
from moorage.catalogue import listing
from moorage.configuration import parsing
from moorage.errors import MoorageError
from moorage.files import replaced_folder
from moorage.fleet.rollout import plans
from moorage.images import demo, mirroring, outcome, pushing, skopeo, sources
from moorage.images.demo import index, tree
from moorage.images.demo.layout import LayoutWriter
from moorage.images.mirroring import MirrorWish
from moorage.images.outcome import ImageOutcome
from moorage.platforms import PLATFORMS
from moorage.references import Reference
from moorage.registry import client
from moorage.registry.logins.credentials import Credentials, credentials, keep
from moorage.registry.storage.opened import opened
from moorage.settings import ROOT, NodesSettings, RegistrySettings
from moorage.ui import UI
from tests.agent.authority import Authority
from tests.debian import unpacked
from tests.distribution import PASSWORD, PUSHER, ROBOT, TokenServer, serving
from tests.images import upstream
from tests.images.upstream import Upstream, fill
from tests.loopback import Loopback, loopback
from tests.unit.elsewhere import project, registry_project

if TYPE_CHECKING:
    from docker import DockerClient

NAMES = {"team/app": 1, "library/nginx": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with skopeo's policy; skopeo itself on PATH."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in upstream.environment(folder).items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Loopback]:
    with loopback(registry_project(tmp_path_factory.mktemp("ours"))) as running:
        yield running


@pytest.fixture
def there(tmp_path: Path, home: Path) -> Iterator[Upstream]:
    with upstream.upstream(tmp_path / "up", home, NAMES) as running:
        yield running


def _mirror(
    ours: Loopback, *images: str | Reference, authfile: str = "", **wish: object
) -> list[ImageOutcome]:
    each = [one if isinstance(one, Reference) else references.parse(one) for one in images]
    return mirroring.mirror(ours.settings, each, authfile, MirrorWish(**wish), UI())  # type: ignore[arg-type]


def _digest(ours: Loopback, landed: str) -> str:
    image = references.parse(landed)
    login = credentials(ours.settings)
    return client.manifest_digest(ours.settings, login, image.repository, image.version)


def _only(found: list[ImageOutcome]) -> ImageOutcome:
    (one,) = found
    return one


def test_an_image_lands_with_every_platform_and_its_digest(ours: Loopback, there: Upstream) -> None:
    found = _mirror(ours, f"{there.name}/team/app:1", f"{there.name}/library/nginx:1")
    assert outcome.document(found)["ok"]
    for one, name in zip(found, NAMES, strict=True):
        assert one.digest == there.digests[f"{name}:1"] == _digest(ours, one.landed)
        assert f"/{there.name.replace(':', '_')}/{name}:1" in one.landed
        login = credentials(ours.settings)
        path = f"/v2/{references.parse(one.landed).repository}/manifests/1"
        index = client.ask(ours.settings, path, login=login, accept=client.MANIFEST_TYPES)
        assert len(json.loads(index.body)["manifests"]) == len(upstream.PLATFORMS)


def test_a_second_run_asks_once_per_image_and_moves_nothing(
    ours: Loopback, there: Upstream
) -> None:
    images = [f"{there.name}/{name}:1" for name in NAMES]
    _mirror(ours, *images)
    before = len(there.requests())
    again = _mirror(ours, *images)
    assert not any(one.changed or one.fault for one in again)
    assert sorted(there.requests()[before:]) == sorted(
        f"HEAD /v2/{name}/manifests/1" for name in NAMES
    )


def test_a_tag_that_moved_stays_until_it_is_asked_for(
    ours: Loopback, there: Upstream, tmp_path: Path
) -> None:
    image = f"{there.name}/team/app:1"
    first = _only(_mirror(ours, image))
    moved = fill(there.served.folder, {"team/app": 2})["team/app:1"]
    refused = _only(_mirror(ours, image))
    assert refused.fault is not None
    assert refused.fault.code == "tag-moved"
    assert first.digest in refused.fault.cause
    assert moved in refused.fault.cause
    assert _digest(ours, first.landed) == first.digest
    # By digest what was seen is still to be had, and moves no tag.
    assert _only(_mirror(ours, f"{image}@{first.digest}")).fault is None
    assert _only(_mirror(ours, image, update=True)).digest == moved
    assert _digest(ours, first.landed) == moved


def test_one_platform_alone_has_its_own_digest(ours: Loopback, there: Upstream) -> None:
    image = f"{there.name}/team/app:1"
    # Another tag, so that the index is not there already.
    found = _only(_mirror(ours, image, platform="linux/arm64"))
    again = _only(_mirror(ours, image, platform="linux/arm64"))
    assert found.fault is None
    assert found.digest not in ("", there.digests["team/app:1"])
    assert (again.digest, again.changed) == (found.digest, False)
    missing = _only(_mirror(ours, image, platform="linux/ppc64le"))
    assert missing.fault is not None
    assert missing.fault.code == "wrong-platform"
    assert "linux/s390x" in missing.fault.cause


def test_what_fails_is_summed_up_by_cause_and_the_others_go_on(
    ours: Loopback, there: Upstream
) -> None:
    good = f"{there.name}/team/app:1"
    found = _mirror(ours, f"{there.name}/no/such:1", f"{there.name}/no/other:1", good)
    assert [one.fault is None for one in found] == [False, False, True]
    (cause,) = outcome.causes(found)
    assert cause.fault.code == "image-missing"
    assert cause.images == (f"{there.name}/no/such:1", f"{there.name}/no/other:1")
    assert not outcome.document(found)["ok"]
    assert found[2].digest == there.digests["team/app:1"]


def test_an_upstream_that_is_not_trusted_is_named(
    ours: Loopback, tmp_path: Path, home: Path
) -> None:
    with upstream.upstream(tmp_path / "up", home, NAMES, trusted=False) as there:
        found = _only(_mirror(ours, f"{there.name}/team/app:1"))
    assert found.fault is not None
    assert found.fault.code == "x509-unknown-authority"
    assert f"/etc/containers/certs.d/{there.name}/ca.crt" in found.fault.cure


def test_an_upstream_that_wants_a_login_gets_the_one_of_the_file(
    ours: Loopback, tmp_path: Path, home: Path
) -> None:
    with (
        TokenServer(Authority()).running() as tokens,
        upstream.upstream(tmp_path / "up", home, NAMES, tokens=tokens) as there,
    ):
        # The token server has another port, and the same CA.
        certs = home / ".config/containers/certs.d" / there.name / "ca.crt"
        other = home / ".config/containers/certs.d" / f"localhost:{tokens.port}"
        other.mkdir()
        (other / "ca.crt").write_text(certs.read_text())
        image = f"{there.name}/team/app:1"
        refused = _only(_mirror(ours, image))
        assert refused.fault is not None
        assert refused.fault.code == "login-refused"
        assert f"skopeo login {there.name}" in refused.fault.cure
        word = base64.b64encode(f"{PUSHER}:{PASSWORD}".encode()).decode()
        authfile = tmp_path / "auth.json"
        authfile.write_text(json.dumps({"auths": {there.name: {"auth": word}}}))
        found = _only(_mirror(ours, image, authfile=str(authfile)))
        assert found.fault is None, found
        asked = len(tokens.asked)
        assert not _only(_mirror(ours, image, authfile=str(authfile))).changed
        assert len(tokens.asked) == asked + 1


def test_a_blob_that_changed_on_the_way_is_named(
    ours: Loopback, tmp_path: Path, home: Path
) -> None:
    """The upstream's disk is spoilt, so what it sends is not what its manifest says."""
    with upstream.upstream(tmp_path / "up", home, {"spoilt/app": 1}, size=9000) as there:
        blobs = there.served.folder.rglob("blobs/sha256/*/*/data")
        big = next(path for path in blobs if path.stat().st_size > 9000)
        big.write_bytes(bytes(big.stat().st_size))
        found = _only(_mirror(ours, f"{there.name}/spoilt/app:1"))
    assert found.fault is not None
    assert found.fault.code == "digest-changed", found.fault.cause
    assert there.name in found.fault.message


def test_no_login_stands_in_an_argument_or_stays_in_a_file(
    ours: Loopback, there: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ours.settings
    password = credentials(settings).password
    with skopeo.access(settings, credentials(settings)) as allowed:
        assert Path(allowed.authfile).stat().st_mode & 0o777 == 0o600
        assert Path(allowed.authfile).parent.stat().st_mode & 0o777 == 0o700
    with caplog.at_level("DEBUG"):
        _mirror(ours, f"{there.name}/team/app:1")
    assert "skopeo copy" in caplog.text
    assert password not in caplog.text
    assert not list((settings.state / "images").iterdir())


def test_a_copy_ends_when_it_is_stopped(ours: Loopback, there: Upstream) -> None:
    """The registry is frozen, as on a line that brings nothing."""
    stop = threading.Event()
    front = ours.running["front"]
    with skopeo.access(ours.settings, credentials(ours.settings)) as allowed:
        os.killpg(front.pid, signal.SIGSTOP)
        try:
            threading.Timer(0.5, stop.set).start()
            target = Reference(ours.settings.registry_name, "stopped", "1")
            with pytest.raises(MoorageError, match="stopped"):
                skopeo.copy(f"docker://{there.name}/team/app:1", target, allowed,
                            exactly=True, stop=stop)  # fmt: skip
        finally:
            os.killpg(front.pid, signal.SIGCONT)


# -- image.push ------------------------------------------------------------------------------


@pytest.fixture
def layout(there: Upstream, tmp_path: Path) -> Path:
    folder = tmp_path / "layout"
    upstream.layout(folder, f"docker://{there.name}/team/app:1", {})
    return folder


def test_a_layout_goes_in_with_every_platform_and_its_digest(
    ours: Loopback, there: Upstream, layout: Path
) -> None:
    found = pushing.push(ours.settings, [str(layout)], "team/pushed:1", UI())
    assert _only(found).digest == there.digests["team/app:1"], found
    assert _only(found).landed == f"{ours.settings.registry_name}/team/pushed:1"
    again = pushing.push(ours.settings, [str(layout)], "team/pushed:1", UI())
    assert not _only(again).changed


def test_an_oci_archive_says_itself_what_it_is_called(ours: Loopback, layout: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["annotations"] = {
        "org.opencontainers.image.ref.name": "1",
        "io.containerd.image.name": "docker.io/team/named:1",
    }
    (layout / "index.json").write_text(json.dumps(index))
    archive = layout.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        for path in sorted(layout.rglob("*")):
            tar.add(path, path.relative_to(layout), recursive=False)
    found = _only(pushing.push(ours.settings, [str(archive)], "", UI()))
    assert found.landed == f"{ours.settings.registry_name}/team/named:1", found
    assert found.fault is None


def test_a_layout_of_dockers_kinds_goes_in_by_its_tag(
    ours: Loopback, layout: Path, tmp_path: Path
) -> None:
    """As buildx writes it with oci-mediatypes=false. skopeo 1.9.3 finds no such image by a tag."""
    index = json.loads((layout / "index.json").read_text())
    place = layout / "blobs/sha256" / index["manifests"][0]["digest"].removeprefix("sha256:")
    first = json.loads(place.read_bytes())["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((layout / "blobs/sha256" / first).read_bytes())
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest["mediaType"] = kind
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    for layer in manifest["layers"]:
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    content = json.dumps(manifest).encode()
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(content)
    row = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}
    row["annotations"] = {"org.opencontainers.image.ref.name": "team/docker:1"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [row]}))
    found = _only(pushing.push(ours.settings, [str(layout)], "", UI()))
    assert (found.fault, found.digest) == (None, f"sha256:{digest}")
    assert found.landed == f"{ours.settings.registry_name}/team/docker:1"


def test_all_names_are_tried_and_summed_up(
    ours: Loopback, there: Upstream, layout: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "docker.tar"
    source = f"docker://{there.name}/team/app:1"
    commands.run(
        ["skopeo", "--override-arch", "amd64", "copy", "--quiet", source,
         f"docker-archive:{archive}:team/saved:3"]
    )  # fmt: skip
    broken = tmp_path / "broken.tar"
    broken.write_bytes(archive.read_bytes()[:700])
    words = tmp_path / "words.tar"
    words.write_text("no archive")
    names = [str(broken), str(words), str(tmp_path / "absent.tar"), str(layout), str(archive)]
    found = pushing.push(ours.settings, names, "", UI())
    assert [one.fault.code if one.fault else "" for one in found] == [
        *["bad-image-archive"] * 4,
        "",
    ]
    assert found[4].landed == f"{ours.settings.registry_name}/team/saved:3"
    assert "--target" in (found[3].fault.cure if found[3].fault else "")
    assert sum(len(row.images) for row in outcome.causes(found)) == 4


def test_the_demo_image_goes_in_as_an_index_of_its_platforms(
    ours: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, machines = ours.settings, ("linux/amd64", "linux/arm64")
    with replaced_folder(index.folder(settings)) as draft:
        writer = LayoutWriter(draft)
        for name in machines:
            layer = writer.packed({"name": tree.file(name.encode())})
            writer.image(PLATFORMS[name], [layer], index.RUNS)
        digest = writer.close(settings.image_reference, "inputs")
    asked: list[str] = []

    def no_engine() -> DockerClient:
        raise AssertionError("an engine was asked for")

    pushed = demo.push(settings, no_engine, UI().progress)
    assert (pushed.digest, pushed.changed) == (digest, True)
    assert _digest(ours, settings.image_reference) == digest
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")  # what is there already takes no skopeo
        assert not demo.push(settings, no_engine, UI().progress).changed
    (held,) = listing.repositories(opened(settings), settings.image.name)
    assert listing.platforms(opened(settings), held, digest) == machines
    login = credentials(settings)
    for row in held.manifests[digest].manifest.children:
        path = f"/v2/{settings.image.name}/manifests/{row}"
        answer = client.ask(settings, path, login=login, accept=client.MANIFEST_TYPES)
        config = json.loads(answer.body)["config"]["digest"]
        blob = client.ask(settings, f"/v2/{settings.image.name}/blobs/{config}", login=login)
        asked.append("linux/" + json.loads(blob.body)["architecture"])
    assert sorted(asked) == sorted(machines)


@pytest.mark.parametrize(
    ("name", "lands"),
    [
        ("app:1", "my.registry.io/app:1"),
        ("team/app", "my.registry.io/team/app:latest"),
        ("my.registry.io/team/app:2", "my.registry.io/team/app:2"),
        ("localhost/app:1", "my.registry.io/app:1"),
        ("quay.io/a/b:1", "my.registry.io/quay.io/a/b:1"),
    ],
)
def test_a_pushed_image_goes_under_its_own_path(name: str, lands: str) -> None:
    from moorage.settings import Settings

    assert str(sources.target(replace(Settings()), name)) == lands


def test_a_registry_of_somebody_elses_takes_them_too(
    there: Upstream, layout: Path, tmp_path: Path
) -> None:
    """One that wants bearer tokens, as Harbor and GitLab do; the stand-in issues them."""
    with (
        TokenServer(Authority()).running() as tokens,
        serving(tmp_path / "external", tokens.authority.issue("localhost"), tokens) as served,
    ):
        (tmp_path / "ca.crt").write_text(tokens.authority.pem)
        settings = project(
            tmp_path / "project",
            registry=RegistrySettings(
                host="localhost", port=served.port, external=True, ca=str(tmp_path / "ca.crt")
            ),
            nodes=NodesSettings(mirror_path="team/{registry}"),
        )
        keep(settings, Credentials(PUSHER, PASSWORD))
        pushed = _only(pushing.push(settings, [str(layout)], "team/app:2", UI()))
        image = references.parse(f"{there.name}/library/nginx:1")
        mirrored = _only(mirroring.mirror(settings, [image], "", MirrorWish(), UI()))
        again = _only(mirroring.mirror(settings, [image], "", MirrorWish(), UI()))
        # That robot may pull alone.
        keep(settings, Credentials(ROBOT, PASSWORD))
        refused = _only(pushing.push(settings, [str(layout)], "team/app:3", UI())).fault
    assert refused is not None
    assert refused.code in ("login-refused", "access-denied"), refused
    assert "registry.login" in refused.cure
    assert (pushed.fault, mirrored.fault) == (None, None)
    assert pushed.digest == there.digests["team/app:1"]
    assert mirrored.digest == there.digests["library/nginx:1"]
    place = f"localhost:{served.port}/team/{there.name.replace(':', '_')}/library/nginx:1"
    assert (mirrored.landed, again.changed) == (place, False)


def test_the_command_ends_with_1_and_one_document_if_an_image_fails(
    ours: Loopback, there: Upstream, tmp_path: Path
) -> None:
    """The whole command, in a folder of its own, on a registry that is somebody else's to it."""
    for name in ("moorage", "agent"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tasks.py", "invoke.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    login, registry = credentials(ours.settings), ours.settings.registry
    folder = tmp_path / ".moorage/registry/external"
    folder.mkdir(parents=True)
    (folder / f"localhost:{registry.port}.login").write_text(f"{login.user}:{login.password}\n")
    (tmp_path / "list").write_text(f"{there.name}/team/app:1\n{there.name}/no/such:1\n")
    variables = {
        "INVOKE_REGISTRY_HOST": "localhost",
        "INVOKE_REGISTRY_PORT": str(registry.port),
        "INVOKE_REGISTRY_EXTERNAL": "true",
        "INVOKE_REGISTRY_CA": str(ours.settings.ca_file),
    }
    argv = [sys.executable, "-m", "invoke", "image.mirror", "list", "--json"]
    ran = commands.run(argv, cwd=tmp_path, env=variables, check=False)
    assert ran.returncode == 1, ran.stderr
    said = json.loads(ran.stdout)
    assert (said["ok"], said["changed"], said["failed"]) == (False, True, 1)
    assert said["images"][0]["digest"] == there.digests["team/app:1"]
    assert [row["code"] for row in said["causes"]] == ["image-missing"]
    (tmp_path / "list").write_text(f"{there.name}/team/app:1\n")
    again = commands.run(argv[:-1], cwd=tmp_path, env=variables, check=False)
    assert again.returncode == 0, again.stderr
    assert b"1 image: 0 mirrored, 1 unchanged, 0 failed" in again.stdout


# -- and what nodes make of it ---------------------------------------------------------------


@contextmanager
def _containerd(folder: Path) -> Iterator[list[str]]:
    """Debian's containerd, alone -> its client's command."""
    programs = unpacked("containerd") / "usr" / "bin"
    address = f"{folder}/containerd.sock"
    config = folder / "config.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    argv = [f"{programs}/containerd", "--config", str(config), "--root", f"{folder}/root"]
    argv += ["--state", f"{folder}/state", "--address", address]
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as one:
        try:
            until = time.monotonic() + 60
            client = [str(programs / "ctr"), "--address", address]
            while subprocess.run([*client, "version"], capture_output=True, check=False).returncode:
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.2)
            yield client
        finally:
            one.terminate()


@pytest.mark.skipif(os.geteuid() != 0, reason="containerd wants root")
@pytest.mark.parametrize("fallback", [True, False])
def test_a_real_containerd_pulls_the_unchanged_name_from_where_it_landed(
    ours: Loopback, home: Path, tmp_path: Path, sockets: Path, fallback: bool
) -> None:
    """The other registry is gone by then, so only ours can have answered."""
    with upstream.upstream(tmp_path / "up", home, {"only/here": 1}) as there:
        found = _only(_mirror(ours, f"{there.name}/only/here:1"))
        name, digest = f"{there.name}/only/here:1", there.digests["only/here:1"]
    assert found.fault is None
    settings = ours.settings
    plan = plans.make(
        parsing.with_nodes(settings, mirrors=there.name, mirror_fallback=fallback),
        ca=settings.ca_file.read_text(),
        address=None,
    )
    hosts = tmp_path / "certs.d"
    place = hosts / hosts_toml.names(there.name)[0]
    place.mkdir(parents=True)
    (mirror,) = plan.mirrors
    (place / "hosts.toml").write_bytes(
        hosts_toml.mirror(plan.registry, mirror, str(settings.ca_file))
    )
    login = credentials(settings)
    with _containerd(sockets) as client:
        pull = [*client, "content", "fetch", "--hosts-dir", str(hosts), "--all-platforms",
                "--user", f"{login.user}:{login.password}", name]  # fmt: skip
        done = subprocess.run(pull, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        listed = subprocess.run([*client, "images", "ls"], capture_output=True, check=True).stdout
        assert digest.encode() in listed
        # Without the path it is not there: the path alone leads to it.
        (place / "hosts.toml").write_bytes(
            hosts_toml.mirror(plan.registry, replace(mirror, path=""), str(settings.ca_file))
        )
        subprocess.run([*client, "images", "rm", name], capture_output=True, check=True)
        done = subprocess.run(pull, capture_output=True, check=False, timeout=120)
        assert done.returncode != 0


@pytest.mark.parametrize("fallback", [True, False])
def test_the_library_of_podman_and_crio_pulls_the_unchanged_name_too(
    ours: Loopback, home: Path, tmp_path: Path, fallback: bool
) -> None:
    """Debian's skopeo, which reads registries.conf as Podman, Buildah and CRI-O do."""
    with upstream.upstream(tmp_path / "up", home, {"only/there": 1}) as there:
        found = _only(_mirror(ours, f"{there.name}/only/there:1"))
        name, digest = f"{there.name}/only/there:1", there.digests["only/there:1"]
    assert found.fault is None
    settings = ours.settings
    wanted = parsing.with_nodes(settings, mirrors=there.name, mirror_fallback=fallback)
    plan = plans.make(wanted, ca=settings.ca_file.read_text(), address=None)
    (mirror,) = plan.mirrors
    certs = home / ".config/containers/certs.d" / settings.registry_name
    certs.mkdir(exist_ok=True)
    (certs / "ca.crt").write_text(settings.ca_file.read_text())
    conf = home / ".config/containers/registries.conf"
    with skopeo.access(settings, credentials(settings)) as allowed:
        argv = ["skopeo", "inspect", "--raw", "--authfile", allowed.authfile, f"docker://{name}"]
        try:
            conf.write_text(registries_conf.mirror_table(mirror, plan.registry))
            done = commands.run(argv, check=False)
            assert skopeo.digest_of(done.stdout) == digest, done.stderr
            conf.write_text(registries_conf.mirror_table(replace(mirror, path=""), plan.registry))
            assert commands.run(argv, check=False).returncode != 0
        finally:
            conf.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of a few megabytes takes a mount")
def test_a_full_disk_is_named(
    home: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The registry's own disk, a real one, of four megabytes."""
    settings = registry_project(tmp_path_factory.mktemp("small"))
    big = {"big/app": 1}
    disk = settings.registry_data.parent
    disk.mkdir(parents=True)
    mounted = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mounted, check=False, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        with (
            upstream.upstream(tmp_path / "bigger", home, big, size=3_000_000) as other,
            loopback(settings) as small,
        ):
            found = _mirror(small, f"{other.name}/big/app:1")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert found[0].fault is not None
    assert found[0].fault.code == "disk-full", found[0].fault
    assert "goes on from here" in found[0].fault.cure


@pytest.mark.engine
def test_an_image_of_the_engine_goes_in_by_its_name(
    ours: Loopback, there: Upstream, tmp_path: Path
) -> None:
    from moorage.docker import engine

    name = f"moorage-test-{os.getpid()}:1"
    archive = tmp_path / "image.tar"
    commands.run(
        ["skopeo", "--override-arch", "amd64", "copy", "--quiet",
         f"docker://{there.name}/team/app:1", f"docker-archive:{archive}:{name}"]
    )  # fmt: skip
    docker = engine.connect(ours.settings)
    try:
        docker.images.load(archive.read_bytes())
        found = pushing.push(ours.settings, [name, "moorage-test-absent:1"], "", UI())
    finally:
        docker.images.remove(name)
        docker.close()
    assert [one.fault.code if one.fault else "" for one in found] == ["", "no-image"]
    assert found[0].digest == _digest(ours, found[0].landed) != ""
    assert found[0].landed == f"{ours.settings.registry_name}/{name}"
