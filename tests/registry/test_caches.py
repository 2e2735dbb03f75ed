"""Caches of other registries on loopback: real HAProxy, real Distributions, an upstream that turns.

The upstream's own stand-ins (429, silence) say so in tests/registry/turning.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.formats import hosts_toml
from moorage import commands, references, registry
from moorage.backup import freeze
from moorage.caches import answering, held, hiding, standing
from moorage.configuration import parsing
from moorage.errors import Refused
from moorage.fleet.rollout import plans
from moorage.images import mirroring
from moorage.images.mirroring import MirrorWish
from moorage.images.skopeo import SkopeoAccess
from moorage.pki import registry as pki
from moorage.registry import caching, service, spec
from moorage.registry.caches import upstreams
from moorage.registry.caches.upstreams import Upstream
from moorage.registry.front.configuration import proving_name
from moorage.registry.front.roles import User
from moorage.registry.logins import users
from moorage.registry.logins.credentials import Credentials, credentials
from moorage.registry.storage.layout import Layout
from moorage.settings import ROOT, NodesSettings, Settings
from moorage.ui import UI
from tests.agent.authority import Authority
from tests.distribution import PASSWORD, PUSHER, TokenServer
from tests.engine import bridge
from tests.images import upstream
from tests.images.upstream import fill
from tests.loopback import Loopback, loopback
from tests.registry.program import INDEX, MANIFEST, Registry
from tests.registry.test_images_in import _containerd as containerd
from tests.registry.turning import Turning, turning
from tests.unit.elsewhere import registry_project

NAMES = {"library/nginx": 1, "team/app": 1, "team/late": 1, "never/asked": 1}
ACCEPT = {"Accept": f"{INDEX}, {MANIFEST}"}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Turning]:
    with turning(tmp_path / "up", NAMES) as made:
        yield made


@pytest.fixture
def settings(sockets: Path) -> Settings:
    (sockets / "o").mkdir()
    return registry_project(sockets / "o")


@pytest.fixture
def ours(settings: Settings, up: Turning) -> Iterator[Loopback]:
    """A registry with a cache of ``up``."""
    upstreams.keep(settings, Upstream(up.name, ca=up.authority.pem))
    with running(settings) as made:
        yield made


class running:
    """A registry and its caches, which answer."""

    def __init__(self, settings: Settings) -> None:
        self._made = loopback(settings)
        self._settings = settings

    def __enter__(self) -> Loopback:
        made = self._made.__enter__()
        for one in upstreams.read(self._settings):
            wait_for(made, one)
        return made

    def __exit__(self, *problem: Any) -> None:
        self._made.__exit__(*problem)


def wait_for(made: Loopback, one: Upstream, *, cache: bool = True) -> None:
    """Until the sockets are there: that of the store, and that of the cache itself."""
    wanted = upstreams.cached(made.settings, [one])[0].sockets[0 if cache else 1 :]
    until = time.monotonic() + 20
    while not all((service.run(made.settings) / name).exists() for name in wanted):
        assert time.monotonic() < until, made.log(f"cache-{one.file}")
        time.sleep(0.05)
    time.sleep(1.2)  # HAProxy looks each second


def only(made: Loopback) -> Upstream:
    (one,) = upstreams.read(made.settings)
    return one


def below(made: Loopback, up: Turning) -> str:
    return f"/v2/{up.name.replace(':', '_')}"


def pull(made: Loopback, place: str, query: str = "", login: Credentials | None = None) -> str:
    """The digest of an image that comes whole, by tag, one platform of it; else the status."""
    who = login or credentials(made.settings)
    status, headers, body = made.ask("GET", f"{place}/manifests/1{query}", who, headers=ACCEPT)
    if status != 200:
        return str(status)
    child = json.loads(body)["manifests"][0]["digest"]
    status, _, manifest = made.ask("GET", f"{place}/manifests/{child}{query}", who, headers=ACCEPT)
    assert status == 200, manifest
    for part in (json.loads(manifest)["config"], *json.loads(manifest)["layers"]):
        status, _, blob = made.ask("GET", f"{place}/blobs/{part['digest']}{query}", who)
        assert (status, len(blob)) == (200, part["size"])
        _settled(made, part["digest"])
    return headers["docker-content-digest"]


def _settled(made: Loopback, digest: str) -> None:
    """Distribution 2.8 fetches a blob a second time to store it, and goes on after its answer."""
    stores = [upstreams.store(made.settings, only(made)), made.settings.registry_data]
    until = time.monotonic() + 20
    while not any(Layout(one).blob(digest).exists() for one in stores):
        assert time.monotonic() < until, made.log(f"cache-{only(made).file}")
        time.sleep(0.05)
    time.sleep(0.2)  # the link that lets the repository serve it comes after


def restart(made: Loopback) -> None:
    """The cache's container, as an engine starts it again after a power failure."""
    one = only(made)
    made.stop(f"cache-{one.file}", signal.SIGKILL)
    for name in upstreams.cached(made.settings, [one])[0].sockets:
        (service.run(made.settings) / name).unlink(missing_ok=True)
    made.start(f"cache-{one.file}")


# -- pulled through --------------------------------------------------------------------------


def test_an_image_is_fetched_once_by_path_and_by_ns(ours: Loopback, up: Turning) -> None:
    place = below(ours, up)
    assert pull(ours, f"{place}/library/nginx") == up.digests["library/nginx:1"]
    blobs = [one for one in up.requests() if "/blobs/" in one and one.startswith("GET")]
    assert blobs
    assert pull(ours, f"{place}/library/nginx") == up.digests["library/nginx:1"]
    # Containerd encodes the colon; without the path nothing else says which registry is meant.
    encoded = up.name.replace(":", "%3A")
    for query in (f"?ns={encoded}", f"?ns={up.name}", f"?x=1&ns={up.name}"):
        assert pull(ours, "/v2/library/nginx", query) == up.digests["library/nginx:1"]
    assert [one for one in up.requests() if "/blobs/" in one and one.startswith("GET")] == blobs
    assert pull(ours, f"{place}/library/nginx", f"?ns={encoded}") == up.digests["library/nginx:1"]
    assert pull(ours, "/v2/library/nginx") == "404"
    assert pull(ours, "/v2/library/nginx", "?ns=quay.io") == "404"


def test_what_was_mirrored_below_the_path_comes_first(ours: Loopback, up: Turning) -> None:
    """An image of ours at the same place was put there on purpose, and is what is served."""
    mirrored(ours, up, "library/nginx")
    pinned = pull(ours, f"{below(ours, up)}/library/nginx")
    assert pinned not in ("404", up.digests["library/nginx:1"])
    assert pull(ours, f"{below(ours, up)}/team/app") == up.digests["team/app:1"]


def mirrored(made: Loopback, up: Turning, name: str) -> None:
    """Another version of the image in our own store, below the cache's path."""
    fill_store(made.settings.registry_data, {f"{up.name.replace(':', '_')}/{name}": 7})


def fill_store(data: Path, names: dict[str, int]) -> None:
    beside = Registry(data)
    beside.start()
    try:
        for name, version in names.items():
            content = upstream.image(beside, name, version)
            assert beside.push_manifest(name, "1", content, INDEX) == 201
    finally:
        beside.kill()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_push_gets_a_sentence(ours: Loopback, up: Turning, method: str) -> None:
    login, place = credentials(ours.settings), f"{below(ours, up)}/library/nginx"
    for path in (f"{place}/manifests/2", f"{place}/blobs/uploads/"):
        status, _, body = ours.ask(method, path, login, b"{}")
        (error,) = json.loads(body)["errors"]
        assert (status, error["code"]) == (403, "DENIED")
        assert f"cache of {up.name}" in error["message"]
        assert "accepts no pushes" in error["message"]
    # Beside the cache's path a push goes on as it did.
    assert ours.ask("POST", "/v2/library/nginx/blobs/uploads/", login, b"")[0] == 202


def test_a_deletion_says_how_a_cache_goes(ours: Loopback, up: Turning) -> None:
    place = f"{below(ours, up)}/library/nginx"
    digest = pull(ours, place)
    status, _, body = ours.ask("DELETE", f"{place}/manifests/{digest}", credentials(ours.settings))
    assert status == 405
    assert f"inv registry.cache {up.name} --remove" in body.decode()
    assert pull(ours, place) == digest


def test_logins_and_roles_hold_for_a_cache_too(ours: Loopback, up: Turning) -> None:
    made = {}
    for name, patterns in {
        "reader": ("**",),
        "there": (f"{up.name.replace(':', '_')}/team/**",),
        "here": ("team/**",),
    }.items():
        password = users.add(ours.settings, User(name, "pull", patterns))
        made[name] = Credentials(name, password)
    ours.apply()
    place, ns = below(ours, up), f"?ns={up.name}"
    good = up.digests["team/app:1"]
    assert ours.ask("GET", f"{place}/team/app/manifests/1")[0] == 401
    assert ours.ask("GET", f"/v2/team/app/manifests/1{ns}")[0] == 401
    assert pull(ours, f"{place}/team/app", login=made["reader"]) == good
    assert pull(ours, f"{place}/team/app", login=made["there"]) == good
    assert pull(ours, "/v2/team/app", ns, login=made["there"]) == good
    assert pull(ours, f"{place}/library/nginx", login=made["there"]) == "403"
    # What a login may have of ours is not what it may have of another registry.
    assert pull(ours, "/v2/team/app", ns, login=made["here"]) == "403"


def test_a_cache_that_is_open_is_read_without_a_login_and_shows_nothing_of_ours(
    settings: Settings, up: Turning
) -> None:
    upstreams.keep(settings, Upstream(up.name, open=True, ca=up.authority.pem))
    with running(settings) as ours:
        place = f"{below(ours, up)}/team/app"
        status, headers, _ = ours.ask("GET", f"{place}/manifests/1", headers=ACCEPT)
        assert (status, headers["docker-content-digest"]) == (200, up.digests["team/app:1"])
        for method in ("POST", "PUT", "DELETE"):
            assert ours.ask(method, f"{place}/manifests/1", None, b"")[0] == 401
        for path in ("/v2/", "/v2/_catalog", "/v2/team/app/manifests/1"):
            assert ours.ask("GET", path)[0] == 401
        # Somebody's private image, mirrored below the same path before.
        mirrored(ours, up, "secret/app")
        path = f"{below(ours, up)}/secret/app/manifests/1"
        assert ours.ask("GET", path, headers=ACCEPT)[0] == 404
        login = credentials(settings)
        assert ours.ask("GET", path, login, headers=ACCEPT)[0] == 200
        # A name alone is nobody's: neither the operator's, nor the one that proves a CA.
        assert ours.ask("GET", path, Credentials(login.user, "x"), headers=ACCEPT)[0] == 404
        proving = Credentials(proving_name("elsewhere.test"), "x")
        assert ours.ask("GET", f"{place}/manifests/1", proving, headers=ACCEPT)[0] == 200


# -- what was pulled once goes on ------------------------------------------------------------

TURNS = {
    "away": Turning.away,
    "limited": Turning.limits,
    "failing": lambda up: up.limits(503),
    "untrusted": Turning.untrusted,
}


@pytest.mark.parametrize("again", [False, True], ids=["running", "started-again"])
@pytest.mark.parametrize("turn", TURNS)
def test_what_was_pulled_once_goes_on(ours: Loopback, up: Turning, turn: str, again: bool) -> None:
    place = below(ours, up)
    digest = pull(ours, f"{place}/library/nginx")
    before = held.held(upstreams.store(ours.settings, only(ours)))
    assert [one.repository for one in before.images] == ["library/nginx"]
    TURNS[turn](up)
    if again:
        restart(ours)
        wait_for(ours, only(ours), cache=False)
    assert pull(ours, f"{place}/library/nginx") == digest == up.digests["library/nginx:1"]
    status, _, body = ours.ask(
        "GET", f"{place}/team/app/manifests/1", credentials(ours.settings), headers=ACCEPT
    )
    assert status == 404
    assert "inv registry.cache --list" in json.loads(body)["errors"][0]["message"]
    # Its age is that of the upstream's last word, however often it is pulled meanwhile.
    after = held.held(upstreams.store(ours.settings, only(ours)))
    assert after.newest == before.newest
    (one,) = standing.all_of(ours.settings, None)
    state = {"limited": "limits", "failing": "away"}.get(turn, turn)
    assert one.answering.state == state, one
    said = replace(one, running=True)
    assert "the image that was pulled is served as it was at 20" in said.problem
    assert said.cure != "inv registry.up"


def test_an_upstream_that_says_nothing_holds_a_pull_for_seconds_alone(
    ours: Loopback, up: Turning
) -> None:
    digest = pull(ours, f"{below(ours, up)}/library/nginx")
    up.hangs()
    started = time.monotonic()
    assert pull(ours, f"{below(ours, up)}/library/nginx") == digest
    assert time.monotonic() - started < 25


def test_a_cache_fetches_again_once_its_upstream_is_back(ours: Loopback, up: Turning) -> None:
    up.away()
    restart(ours)
    wait_for(ours, only(ours), cache=False)
    assert pull(ours, f"{below(ours, up)}/team/late") == "404"
    up.answers()
    until = time.monotonic() + 20
    while pull(ours, f"{below(ours, up)}/team/late") != up.digests["team/late:1"]:
        assert time.monotonic() < until, ours.log(f"cache-{only(ours).file}")
        time.sleep(0.3)


def test_a_tag_that_moved_at_the_upstream_is_fetched_anew(ours: Loopback, up: Turning) -> None:
    place = f"{below(ours, up)}/team/app"
    first = pull(ours, place)
    up.away()
    moved = fill(up.folder, {"team/app": 2})["team/app:1"]
    assert pull(ours, place) == first
    up.answers()
    assert pull(ours, place) == moved != first


def test_nothing_is_forgotten_by_time(ours: Loopback, up: Turning) -> None:
    """Distribution 2.8 forgets what it fetched a week ago: its own notes, and a week later."""
    digest = pull(ours, f"{below(ours, up)}/library/nginx")
    notes = upstreams.store(ours.settings, only(ours)) / "scheduler-state.json"
    until = time.monotonic() + 20
    while not notes.exists():
        assert time.monotonic() < until
        time.sleep(0.2)
    rows = json.loads(notes.read_text())
    assert rows
    ours.stop(f"cache-{only(ours).file}", signal.SIGKILL)
    notes.write_text(
        json.dumps({key: row | {"ExpiryData": "2020-01-01T00:00:00Z"} for key, row in rows.items()})
    )
    restart_after_stop(ours)
    time.sleep(2)
    up.away()
    assert pull(ours, f"{below(ours, up)}/library/nginx") == digest


def restart_after_stop(made: Loopback) -> None:
    one = only(made)
    for name in upstreams.cached(made.settings, [one])[0].sockets:
        (service.run(made.settings) / name).unlink(missing_ok=True)
    made.start(f"cache-{one.file}")
    wait_for(made, one)


# -- the upstream's login --------------------------------------------------------------------


def test_the_upstreams_login_is_kept_here_and_in_no_argument(
    settings: Settings, tmp_path: Path
) -> None:
    with TokenServer(Authority()).running() as tokens, turning(tmp_path / "up", NAMES) as up:
        signers = tmp_path / "signers.crt"
        signers.write_bytes(tokens.pair[0])
        up.answers(
            tokens.authority,
            token={
                "realm": f"https://localhost:{tokens.port}/token",
                "service": "registry",
                "issuer": "stand-in",
                "rootcertbundle": str(signers),
            },
        )
        given = Upstream(up.name, ca=tokens.authority.pem)
        assert answering.ask(settings, replace(given, login=Credentials("nobody", "x"))).state == (
            answering.REFUSES
        )
        one = replace(given, login=Credentials(PUSHER, PASSWORD))
        assert answering.ask(settings, one).state == answering.ANSWERS
        upstreams.keep(settings, one)
        with running(settings) as ours:
            assert pull(ours, f"{below(ours, up)}/team/app") == up.digests["team/app:1"]
            shown = subprocess.run(["ps", "axeww"], capture_output=True, check=True).stdout
            assert PASSWORD.encode() not in shown
        assert (upstreams.folder(settings) / one.file / "login").stat().st_mode & 0o777 == 0o600
        assert PASSWORD not in repr(one) + json.dumps(
            [a.after for a in caching.planned(settings, (), (one,))]
        )


# -- what nodes make of it -------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="containerd wants root")
def test_a_real_containerd_pulls_through_the_cache(
    ours: Loopback, up: Turning, tmp_path: Path, sockets: Path
) -> None:
    """As `nodes.trust --mirror` sets it up, without fallback; then the upstream goes away."""
    settings = ours.settings
    hosts = tmp_path / "certs.d"
    for mirror_path in ("{registry}", ""):
        chosen = replace(settings, nodes=NodesSettings(mirror_path=mirror_path))
        plan = plans.make(
            parsing.with_nodes(chosen, mirrors=up.name, mirror_fallback=False),
            ca=settings.ca_file.read_text(),
            address=None,
        )
        (mirror,) = plan.mirrors
        place = hosts / hosts_toml.names(up.name)[0]
        place.mkdir(parents=True, exist_ok=True)
        (place / "hosts.toml").write_bytes(
            hosts_toml.mirror(plan.registry, mirror, str(settings.ca_file))
        )
        name = f"{up.name}/{'team/app' if mirror_path else 'library/nginx'}:1"
        assert _fetched(sockets, settings, hosts, name) == 0
        up.away()
        assert _fetched(sockets, settings, hosts, name) == 0
        assert _fetched(sockets, settings, hosts, f"{up.name}/never/asked:1") != 0
        up.answers()


def _fetched(sockets: Path, settings: Settings, hosts: Path, name: str) -> int:
    """ctr's exit code; each containerd begins empty."""
    login = credentials(settings)
    folder = sockets / str(time.monotonic_ns())
    folder.mkdir()
    with containerd(folder) as client:
        fetch = [*client, "content", "fetch", "--hosts-dir", str(hosts), "--all-platforms",
                 "--user", f"{login.user}:{login.password}", name]  # fmt: skip
        done = subprocess.run(fetch, capture_output=True, check=False, timeout=120)
        return done.returncode


# -- decided, without a registry -------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("quay.io", "quay.io"),
        ("registry.k8s.io", "registry.k8s.io"),
        ("reg.example.com:5000", "reg.example.com:5000"),
    ],
)
def test_an_upstream_is_named_as_image_names_do(settings: Settings, words: str, name: str) -> None:
    assert upstreams.parse(settings, words) == name


@pytest.mark.parametrize(
    "words",
    ["", "nginx", "https://quay.io", "quay.io/team", "Quay.io", "quay.io:0", "a..b", "quay.io ",
     f"{'a' * 70}.io", "my.registry.io", "quay.io\n", "../x.y", "q{uay}.io"],
)  # fmt: skip
def test_what_is_no_other_registry_is_refused(words: str) -> None:
    with pytest.raises(Refused) as told:
        upstreams.parse(Settings(), words)
    assert told.value.code == "bad-upstream"


@pytest.mark.parametrize(
    ("mirror_path", "path"),
    [("{registry}", "reg.io_5000"), ("team/{registry}", "team/reg.io_5000"), ("", "reg.io_5000")],
)
def test_a_cache_is_where_images_land_and_nodes_ask(
    settings: Settings, mirror_path: str, path: str
) -> None:
    chosen = replace(settings, nodes=NodesSettings(mirror_path=mirror_path))
    assert upstreams.path(chosen, Upstream("reg.io:5000")) == path
    if mirror_path:
        landed = references.landing(chosen, references.parse("reg.io:5000/a:1"))
        assert landed.repository == f"{path}/a"


@pytest.mark.parametrize("password", ['a:"b\\', "pass word", "ключ 🔑", "{x: y}", "- 1", "%[x]"])
def test_a_login_of_any_kind_reaches_the_configuration_whole(password: str) -> None:
    files = spec.cache_files(
        "https://x.y", Credentials("u#ser", password), "", ("a", "b"), "0" * 64
    )
    proxy = yaml.safe_load(files[spec.PROXY])["proxy"]
    assert (proxy["username"], proxy["password"]) == ("u#ser", password)
    assert proxy["remoteurl"] == "https://x.y"
    kept = yaml.safe_load(files[spec.KEPT])
    assert "proxy" not in kept
    assert kept["storage"]["maintenance"]["readonly"]["enabled"]
    for name in (spec.PROXY, spec.KEPT):
        assert "delete" not in yaml.safe_load(files[name])["storage"]  # else 2.8 forgets


def test_a_backup_has_which_caches_there_are_and_nothing_that_they_hold(
    settings: Settings, tmp_path: Path
) -> None:
    one = Upstream("quay.io", login=Credentials("u", "p"))
    upstreams.keep(settings, one)
    settings.certs_dir.mkdir()
    for folder in (upstreams.etc(settings, one), upstreams.store(settings, one)):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    freeze._project(settings, tmp_path)
    copied = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    caches = f"{freeze.REGISTRY}/caches/quay.io"
    assert copied == {f"{caches}/upstream.json", f"{caches}/login"}


def test_a_spoilt_file_is_named(settings: Settings) -> None:
    upstreams.keep(settings, Upstream("quay.io"))
    for text in ("", "[]", '{"name": 1, "open": false}', '{"name": "no", "open": true}'):
        (upstreams.folder(settings) / "quay.io" / "upstream.json").write_text(text)
        with pytest.raises(Refused) as told:
            upstreams.read(settings)
        assert told.value.code == "caches-unreadable"
        assert "rm -r" in told.value.cure


def test_an_upstream_that_has_a_cache_is_not_mirrored(settings: Settings, up: Turning) -> None:
    upstreams.keep(settings, Upstream(up.name, ca=up.authority.pem))
    with running(settings) as ours:
        image = references.parse(f"{up.name}/team/app:1")
        work = mirroring._Work(
            settings, credentials(settings), SkopeoAccess(), MirrorWish(), (image,)
        )
        found = work.one(image)
        assert found.fault is not None
        assert found.fault.code == "cached-path"
        assert f"inv registry.cache {up.name} --remove" in found.fault.cure
        assert pull(ours, f"{below(ours, up)}/team/app") == up.digests["team/app:1"]


# -- the command -----------------------------------------------------------------------------


@pytest.fixture
def inv(tmp_path: Path) -> Callable[..., tuple[int, Any, str]]:
    """The whole command in a checkout of its own -> exit code, document, words."""
    for name in ("moorage", "agent"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tasks.py", "invoke.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    variables = {"INVOKE_REGISTRY_CONTAINER": f"moorage-test-{tmp_path.name[:30]}-{os.getpid()}"}

    def call(*words: str) -> tuple[int, Any, str]:
        argv = [sys.executable, "-m", "invoke", "registry.cache", *words, "--json"]
        ran = commands.run(argv, cwd=tmp_path, env=variables, check=False)
        return ran.returncode, json.loads(ran.stdout), ran.stderr.decode()

    return call


def test_the_command_adds_shows_and_removes(
    inv: Callable[..., tuple[int, Any, str]], up: Turning, tmp_path: Path
) -> None:
    """With no registry that runs yet: `registry.up` makes the containers."""
    (tmp_path / "ca.pem").write_text(up.authority.pem)
    words = (up.name, f"--ca={tmp_path / 'ca.pem'}")
    kept = tmp_path / ".moorage/registry/caches"
    code, planned, said = inv(*words, "--dry-run")
    assert (code, planned["changed"], kept.exists()) == (0, False, False), said
    assert f"remoteurl: https://{up.name}" in said
    assert "secret: [secret]" in said
    assert f"+    acl of-{up.name.replace(':', '_')}" in said
    assert planned["actions"]
    secrets = [tmp_path / ".moorage/registry" / name for name in ("http-secret", "front-key")]
    assert not any(one.exists() for one in secrets)
    code, made, said = inv(*words)
    assert (code, made["changed"]) == (0, True), said
    assert made["caches"][0]["state"] == "answers", made
    assert made["caches"][0]["below"] == f"my.registry.io/{up.name.replace(':', '_')}"
    assert inv(*words)[1]["changed"] is False
    up.away()
    code, listed, said = inv("--list", up.name)
    (row,) = listed["caches"]
    assert (code, row["state"], row["images"], row["listed"]) == (0, "away", 0, [])
    code, refused, _ = inv(up.name, "--remove")
    assert (code, refused["error"]["code"]) == (2, "not-confirmed")
    code, gone, said = inv(up.name, "--remove", "--yes")
    assert (code, gone["changed"]) == (0, True), said
    assert not any(kept.iterdir())
    assert inv(up.name, "--remove", "--yes")[1]["changed"] is False
    assert inv()[1]["caches"] == []


@pytest.mark.parametrize(
    ("form", "own", "hides"),
    [
        ("", "library/nginx", True), ("team", "team/library/nginx", True),
        ("team", "other/nginx", False), ("{registry}", "quay.io/library/nginx", False),
    ],
)  # fmt: skip
def test_what_nodes_ask_by_ns_is_not_hidden_unasked(
    settings: Settings, form: str, own: str, hides: bool
) -> None:
    """By path it is never hidden: the front asks the registry first."""
    settings = replace(settings, nodes=NodesSettings(mirror_path=form))
    one = Upstream("quay.io")
    assert hiding.hidden(settings, (), (one,)) == []
    Layout(settings.registry_data).tag_link(own, "1").parent.mkdir(parents=True)
    found = [action.text for action in hiding.hidden(settings, (), (one,))]
    assert [own in text and "quay.io" in text for text in found] == [True] * hides
    assert hiding.hidden(settings, (one,), (one,)) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("https://quay.io",), "bad-upstream"),
        (("--open",), "wrong-use"),
        (("quay.io", "--remove", "--open"), "wrong-use"),
        (("quay.io", "--open", "--closed"), "wrong-use"),
        (("quay.io", "docker.io", "--login=x"), "wrong-use"),
        (("quay.io", "--login=/nowhere"), "no-credentials"),
        (("quay.io", "--ca=/nowhere"), "bad-upstream-ca"),
    ],
)
def test_a_wrong_use_gets_one_sentence_and_changes_nothing(
    inv: Callable[..., tuple[int, Any, str]], tmp_path: Path, words: tuple[str, ...], code: str
) -> None:
    ended, document, _ = inv(*words)
    assert (ended, document["error"]["code"]) == (2, code)
    assert not (tmp_path / ".moorage/registry/caches").exists()


# -- in containers ---------------------------------------------------------------------------


@pytest.fixture
def contained(tmp_path: Path, client: Any) -> Iterator[tuple[Settings, Turning]]:
    """A project, and an upstream that containers reach."""
    made = registry_project(tmp_path)
    pki.issue(made)
    with turning(tmp_path / "up", NAMES, bridge(client)) as up:
        yield made, up
        registry.down(made, client, UI(), purge=False)
        client.close()


@pytest.mark.engine
def test_a_cache_lives_and_goes_with_the_registry(
    contained: tuple[Settings, Turning], client: Any
) -> None:
    settings, up = contained
    ui = UI(yes=True)
    registry.up(settings, client, ui)
    upstreams.keep(settings, Upstream(up.name, ca=up.authority.pem))
    assert caching.put_in_force(settings, client, ui)
    assert not registry.up(settings, client, ui).changed
    assert registry.pending(settings, client) == []
    made = Loopback(settings, {}, {})
    place, name = below(made, up), f"{settings.registry.container}-cache-{only(made).file}"
    until = time.monotonic() + 30
    while pull(made, f"{place}/team/app") != up.digests["team/app:1"]:
        assert time.monotonic() < until, client.containers.get(name).logs().decode()[-2000:]
        time.sleep(0.5)
    (one,) = standing.all_of(settings, client)
    assert (one.fine, one.problem, len(one.held.images)) == (True, "", 1)
    options = client.containers.get(name).attrs
    assert options["HostConfig"]["PortBindings"] in ({}, None)
    up.away()
    client.containers.get(name).restart(timeout=40)
    until = time.monotonic() + 30
    while pull(made, f"{place}/team/app") != up.digests["team/app:1"]:
        assert time.monotonic() < until, client.containers.get(name).logs().decode()[-2000:]
        time.sleep(0.5)
    (one,) = standing.all_of(settings, client)
    assert (one.running, one.answering.state) == (True, answering.AWAY)
    # A container that is gone comes again with the registry, and what it held is still there.
    client.containers.get(name).remove(force=True)
    assert [name in action.text for action in registry.pending(settings, client)][-1:] == [True]
    assert registry.up(settings, client, ui).changed
    until = time.monotonic() + 30
    while pull(made, f"{place}/team/app") != up.digests["team/app:1"]:
        assert time.monotonic() < until
        time.sleep(0.5)
    caching.take_away(settings, client, ui, only(made))
    caching.put_in_force(settings, client, ui)
    until = time.monotonic() + 30  # the front's worker of before ends once its connections have
    while pull_status(made, f"{place}/team/app") != 404:
        assert time.monotonic() < until
        time.sleep(0.5)
    assert not client.containers.list(all=True, filters={"name": name})
    assert not upstreams.stores(settings).is_dir() or not any(upstreams.stores(settings).iterdir())


def pull_status(made: Loopback, place: str) -> int:
    return made.ask("GET", f"{place}/manifests/1", credentials(made.settings), headers=ACCEPT)[0]


def test_a_ca_with_words_in_any_language_is_taken_without_them(
    settings: Settings, up: Turning
) -> None:
    made = Upstream(up.name, ca=f"# Zürich\n{up.authority.pem}# Ende: Köln\n")
    assert caching.authorities(made).isascii()
    assert up.authority.pem.strip() in caching.authorities(made)
    assert answering.ask(settings, made).state == answering.ANSWERS
