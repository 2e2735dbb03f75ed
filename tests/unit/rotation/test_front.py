"""A CA is rotated before real HAProxy and Distribution, under pullers, with a real containerd."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.clients.cri import with_cri
from agent.clients.failures import CriError
from agent.wire import verbs
from agent.wire.faults import Fault
from agent.wire.plan import Plan, Verify
from agent.wire.report import CHANGED, FAILED, UNREACHABLE, HostResult
from moorage.errors import MoorageError, Refused
from moorage.fleet.inventory import Target
from moorage.fleet.inventory.targets import parse_names
from moorage.fleet.report import FleetReport, logbook
from moorage.fleet.rollout.operation import Operation, Wish
from moorage.fleet.ssh import routing
from moorage.pki import certificates, presented, succession
from moorage.pki import registry as pki
from moorage.registry import handed, served, service, spec
from moorage.registry.front.configuration import PAIRS, PROVING, proving_name
from moorage.registry.logins import users
from moorage.registry.logins.credentials import Credentials, credentials
from moorage.rotation import course, kept, members, proving, rotation
from moorage.rotation.members import Means
from moorage.rotation.rotation import Deeds
from moorage.settings import Settings
from moorage.ui import UI
from tests.debian import unpacked
from tests.loopback import Loopback, basic, loopback, ready
from tests.unit.elsewhere import registry_project
from tests.unit.registry.front.test_front import push_blob

SKOPEO = ("skopeo", "libgpgme11", "libassuan0", "libdevmapper1.02.1")
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def front(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Loopback]:
    """A front with an image that a runtime can unpack; a socket's path may have 97 bytes."""
    with loopback(registry_project(tmp_path_factory.mktemp("r"))) as made:
        monkeypatch.setattr(spec, "ETC", made.etc)
        monkeypatch.setattr(members, "DOCKER_CERTS", tmp_path / "no-docker")
        handed.made(made.settings, [users.NODES])
        push_image(made)
        yield made


def push_image(front: Loopback) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    digest = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [digest]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    image, who = front.settings.image, credentials(front.settings)
    parts = [
        {
            "mediaType": kind,
            "size": len(content),
            "digest": push_blob(front, who, image.name, content),
        }
        for kind, content in ((CONFIG_TYPE, config), (LAYER_TYPE, layer.getvalue()))
    ]
    document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE}
    document |= {"config": parts[0], "layers": parts[1:]}
    path, head = f"/v2/{image.name}/manifests/{image.tag}", {"Content-Type": MANIFEST_TYPE}
    assert front.ask("PUT", path, who, json.dumps(document).encode(), head)[0] == 201


# -- nodes ---------------------------------------------------------------------------------------


def refused(message: str) -> Fault:
    return Fault("x509-unknown-authority", message, cause="its CA", cure="inv nodes.trust")


@dataclass
class Client:
    """Stands in for a node's runtime: pulls by the CA file alone that the node has."""

    ca: Path

    def pull(self, plan: Plan) -> None:
        """Resolves the image, wherever it is sent on to. Raises OSError."""
        assert plan.verify is not None
        reference = plan.registry.reference(plan.verify.image)
        assert reference is not None
        login = Credentials(plan.verify.username or "", plan.verify.password or "")
        place = f"https://{plan.registry.name}/v2/{reference.repository}/manifests/"
        status, headers, _ = self.get(place + reference.version, login)
        assert status in (200, 307), status
        if status == 307:
            status, _, _ = self.get(headers["location"], None)
            assert status == 200

    def get(self, url: str, login: Credentials | None) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(url)
        context = ssl.create_default_context(cadata=self.ca.read_text())
        line = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, context=context, timeout=30
        )
        try:
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            line.request("GET", path, headers={"Accept": MANIFEST_TYPE, **basic(login)})
            answer = line.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            line.close()


@dataclass
class Containerd:
    """A real one, as a process; its ``hosts.toml`` names the CA file of its node."""

    ca: Path
    socket: str

    def pull(self, plan: Plan) -> None:
        assert plan.verify is not None
        verify: Verify = plan.verify

        with_cri(self.socket, lambda cri: cri.pull(verify, 30))


@dataclass
class Nodes:
    """Stands in for the fleet: does what an apply does to the CA file, and pulls as planned."""

    settings: Settings
    runtimes: dict[str, Client | Containerd]
    away: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)  # never take what they are given
    plans: list[Plan] = field(default_factory=list)
    visits: list[str] = field(default_factory=list)

    def run(self, task: str, targets: Sequence[Target], wish: Wish) -> FleetReport:
        routing.to(self.settings, targets)  # refuses a machine that is named twice, as a fleet does
        made = Operation.of(self.settings, verbs.asked(task), wish)
        plan = made.plan(self.settings, "127.0.0.1")
        self.plans.append(plan)
        return FleetReport(tuple(self.on(one, plan) for one in targets))

    def on(self, node: Target, plan: Plan) -> HostResult:
        name, runtime = node.name, self.runtimes[node.host]
        self.visits.append(name)
        if name in self.away:
            return HostResult(name, UNREACHABLE, error=refused("no route"))
        if name not in self.deaf:
            partial = runtime.ca.with_suffix(".new")
            partial.write_text(plan.registry.ca or "")
            partial.replace(runtime.ca)
        try:
            runtime.pull(plan)
        except (OSError, CriError) as problem:
            return HostResult(name, FAILED, verified=False, error=refused(str(problem)))
        return HostResult(name, CHANGED, verified=True, pull_seconds=0.1)

    def hosts(self) -> list[Target]:
        return [Target(name, name) for name in self.runtimes]


def nodes(front: Loopback, folder: Path, *names: str) -> Nodes:
    made = Nodes(front.settings, {})
    for name in names:
        ca = folder / f"{name}.crt"
        ca.write_text(pki.ca_pem(front.settings))
        made.runtimes[name] = Client(ca)
    return made


def means(fleet: Nodes) -> Means:
    return Means(fleet.settings, UI(), fleet)  # type: ignore[arg-type]


@contextmanager
def pullers(fleet: Nodes, count: int = 2) -> Iterator[list[str]]:
    """Every node pulls all along by its usual login; yields what failed."""
    failed: list[str] = []
    done, over = [0], threading.Event()
    usual = Operation.of(fleet.settings, verbs.asked("trust"), Wish())
    plan = usual.plan(fleet.settings, "127.0.0.1")

    def pull(name: str, runtime: Client | Containerd) -> None:
        while not over.is_set():
            try:
                runtime.pull(plan)
                done[0] += 1
            except Exception as problem:  # whatever a pull can end with
                failed.append(f"{name}: {problem!r}")
            time.sleep(0.02)

    threads = [
        threading.Thread(target=pull, args=one)
        for one in fleet.runtimes.items()
        for _ in range(count)
    ]
    for one in threads:
        one.start()
    try:
        yield failed
    finally:
        over.set()
        for one in threads:
            one.join()
    assert done[0] > 20


@contextmanager
def containerd(front: Loopback, folder: Path) -> Iterator[Containerd]:
    """Debian's containerd with its CRI, which runs no container."""
    if os.geteuid() != 0:
        pytest.skip("containerd unpacks an image as root")
    program = shutil.which("containerd") or f"{unpacked('containerd')}/usr/bin/containerd"
    home, name = folder / "c", f"localhost:{front.settings.registry.port}"
    place = home / "certs.d" / name
    place.mkdir(parents=True)
    (place / "hosts.toml").write_text(
        f'server = "https://{name}"\n[host."https://{name}"]\nca = "ca.crt"\n'
    )
    (place / "ca.crt").write_text(pki.ca_pem(front.settings))
    config = home / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{home}/root"\nstate = "{home}/state"\n'
        f'[grpc]\naddress = "{home}/sock"\n'
        '[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "native"\n'
        f'[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{home}/certs.d"\n'
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", config], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not (home / "sock").exists():
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Containerd(place / "ca.crt", f"{home}/sock")
        assert process.poll() is None  # the very process of the beginning
    finally:
        process.terminate()
        process.wait(30)


# -- the whole -----------------------------------------------------------------------------------


def holds(fleet: Nodes, name: str) -> int:
    return fleet.runtimes[name].ca.read_text().count("BEGIN CERTIFICATE")


def test_a_rotation_under_pullers_fails_no_pull_and_restarts_no_runtime(
    front: Loopback, tmp_path: Path
) -> None:
    fleet, here = nodes(front, tmp_path, "a", "b"), front.settings
    old = pki.ca_pem(here)
    with containerd(front, tmp_path) as real:
        fleet.runtimes["real"] = real
        state = rotation.begin(means(fleet), fleet.hosts(), [])
        with pullers(fleet) as failed:
            state = rotation.go(means(fleet), state)
        assert state.phase == course.DONE, state
        assert failed == []
    assert not any(plan.options.restart for plan in fleet.plans)
    logins = [plan.verify.username or "" for plan in fleet.plans if plan.verify]
    proofs = [login for login in logins if login.startswith(PROVING)]
    assert proofs == [proving_name("127.0.0.1")]
    assert {name: holds(fleet, name) for name in fleet.runtimes} == {"a": 1, "b": 1, "real": 1}
    assert pki.ca_pem(here) != old
    assert PROVING not in [user.name for user in users.read(here)]
    assert kept.read(here) is None
    assert not succession.folder(here).exists()
    assert pki.pending(here) == []


def test_a_real_containerd_proves_the_new_ca_only_by_the_new_ca(
    front: Loopback, tmp_path: Path
) -> None:
    """What makes it a proof: with either CA alone the same pull fails, with both it does not."""
    here = front.settings
    with containerd(front, tmp_path) as real:
        old = real.ca.read_text()
        succession.make(here, ["127.0.0.1"])
        with proving.shown(here) as password:
            wish = Operation.of(here, verbs.asked("trust"), Wish(proving=password))
            plan = wish.plan(here, "127.0.0.1")
            with pytest.raises(CriError, match="unknown authority"):
                real.pull(plan)
            real.ca.write_text(succession.pem(here))
            with pytest.raises(CriError, match="unknown authority"):
                real.pull(plan)
            real.ca.write_text(old + succession.pem(here))
            real.pull(plan)
        with pytest.raises(CriError, match=r"401|unauthorized"):
            real.pull(plan)


@pytest.mark.parametrize(("cas", "code"), [("old", 1), ("new", 1), ("both", 0)])
def test_skopeo_proves_it_as_podman_and_cri_o_do(
    front: Loopback, tmp_path: Path, cas: str, code: int
) -> None:
    here, root = front.settings, unpacked("skopeo-with-libraries", *SKOPEO)
    folders = sorted({str(path.parent) for path in root.rglob("*.so*")})
    old = pki.ca_pem(here)
    succession.make(here, ["127.0.0.1"])
    held = {"old": old, "new": succession.pem(here), "both": pki.ca_pem(here)}
    (tmp_path / "certs.d").mkdir()
    (tmp_path / "certs.d" / "ca.crt").write_text(held[cas])
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    with proving.shown(here) as password:
        words: list[str | Path] = [
            "--policy",
            policy,
            "copy",
            "--src-cert-dir",
            tmp_path / "certs.d",
        ]
        login = f"{proving_name('127.0.0.1')}:{password}"
        done = subprocess.run(
            [root / "usr/bin/skopeo", *words, "--src-creds", login,
             f"docker://{here.image_reference}", f"dir:{tmp_path}/image"],
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(folders)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert ("unknown authority" in done.stderr) is (code == 1)


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_killed_after_each_deed_it_is_gone_on_from_and_no_pull_fails(
    front: Loopback, tmp_path: Path
) -> None:
    fleet, here, deaths = nodes(front, tmp_path, "a", "b"), front.settings, 0
    state = rotation.begin(means(fleet), fleet.hosts(), [])
    with pullers(fleet) as failed:
        while state.phase != course.DONE:
            left = 3  # each run gets on by a deed, and dies before the next

            def keep(now: course.State) -> None:
                nonlocal left
                kept.write(here, now)
                left -= 1
                if left == 0:
                    raise Killed

            try:
                state = rotation.carry_on(state, Deeds(means(fleet)), keep)
            except Killed:
                deaths += 1
                state = kept.read(here) or course.State(course.DONE)
    assert failed == []
    assert deaths > 4
    assert {holds(fleet, name) for name in fleet.runtimes} == {1}


def test_a_node_that_does_not_take_the_new_ca_keeps_the_old_leaf_served(
    front: Loopback, tmp_path: Path
) -> None:
    fleet, here = nodes(front, tmp_path, "a", "b"), front.settings
    before = served.certificate(here).fingerprint
    fleet.deaf = {"b"}
    with pullers(fleet) as failed:
        state = rotation.go(means(fleet), rotation.begin(means(fleet), fleet.hosts(), []))
        assert (state.phase, [one.name for one in course.blockers(state)]) == (course.PROVE, ["b"])
        assert served.certificate(here).fingerprint == before
        state = rotation.go(means(fleet), rotation.give_up(state))
    assert state.phase == course.DONE
    assert failed == []
    assert served.certificate(here).fingerprint == before
    assert {holds(fleet, name) for name in fleet.runtimes} == {1}
    assert not succession.folder(here).exists()


def test_a_node_that_is_away_comes_back_after_the_switch_and_has_pulled_all_along(
    front: Loopback, tmp_path: Path
) -> None:
    """Our CA may sign the next one, so a node with the old one alone needs no visit to go on."""
    fleet = nodes(front, tmp_path, "a", "b")
    fleet.away = {"b"}
    with pullers(fleet) as failed:
        state = rotation.go(means(fleet), rotation.begin(means(fleet), fleet.hosts(), []))
        assert (state.phase, [one.name for one in course.blockers(state)]) == (course.DROP, ["b"])
        shown = rotation.to_json(front.settings, state)
        assert (shown["waits_for"], len(shown["cas"])) == (["b"], 2)
        fleet.away = set()
        state = rotation.go(means(fleet), state)
    assert state.phase == course.DONE
    assert failed == []


def done(settings: Settings, verb: str, *words: str) -> None:
    hosts = parse_names(words)
    results = [HostResult(one.name, CHANGED) for one in hosts]
    command = f"{verb} {settings.registry_name}"
    logbook.note(logbook.folder(settings), command, hosts, results)


def test_a_node_of_two_names_is_visited_once_and_follows(front: Loopback, tmp_path: Path) -> None:
    """As node1 and, by Ansible's ansible_port, as node1:22; a third name comes while it runs."""
    fleet, here = nodes(front, tmp_path, "a", "b"), front.settings
    for word in ("a", "a:22", "b"):
        done(here, "trust", word)
    state = rotation.begin(means(fleet), [], [])
    assert [one.name for one in state.members] == ["a", "a:22", "b"]
    fleet.away = {"b"}
    with pullers(fleet) as failed:
        state = rotation.go(means(fleet), state)
        assert [one.name for one in course.blockers(state)] == ["b"]
        assert fleet.visits == ["a", "b", "a"]  # both CAs, then the pull
        fleet.away, fleet.visits = set(), []
        done(here, "trust", "root@a")
        state = rotation.resumed(means(fleet), parse_names(["b:22"]), [])
        assert [one.name for one in state.members] == ["a", "a:22", "b", "b:22"]
        state = rotation.go(means(fleet), state)
    assert (state.phase, failed) == (course.DONE, [])
    assert {holds(fleet, name) for name in fleet.runtimes} == {1}


def test_a_node_of_two_names_is_given_the_old_ca_back_by_an_abort(
    front: Loopback, tmp_path: Path
) -> None:
    """Of one that has two sshds as well, which only the node itself could tell to be one."""
    fleet, here = nodes(front, tmp_path, "a"), front.settings
    before = pki.ca_pem(here)
    done(here, "trust", "a", "a:2201")
    done(here, "trust", "a:22")
    fleet.deaf = {"a", "a:2201"}
    state = rotation.begin(means(fleet), [], [])
    state = rotation.go(means(fleet), state)
    assert (state.phase, len(course.blockers(state))) == (course.PROVE, 3)
    assert state == kept.read(here)
    fleet.deaf = set()
    state = rotation.give_up(rotation.resumed(means(fleet), [], []))
    assert rotation.go(means(fleet), state).phase == course.DONE
    assert pki.ca_pem(here) == before == fleet.runtimes["a"].ca.read_text()


def test_the_ticket_lets_in_for_one_image_and_no_longer_than_the_proof(
    front: Loopback, tmp_path: Path
) -> None:
    here, image = front.settings, front.settings.image
    succession.make(here, ["127.0.0.1"])
    path = f"/v2/{image.name}/manifests/{image.tag}"
    with proving.shown(here) as password:
        login = Credentials(proving_name("127.0.0.1"), password)
        status, headers, _ = front.ask("GET", path, login)
        assert (status, front.ask("GET", "/v2/", login)[0]) == (307, 200)
        where = urlsplit(headers["location"])
        assert (where.hostname, where.port) == ("127.0.0.1", here.registry.port)
        assert password not in headers["location"]
        kind = {"Accept": MANIFEST_TYPE}
        assert front.ask("GET", f"{where.path}?{where.query}", headers=kind)[0] == 200
        assert front.ask("GET", f"/v2/other/tags/list?{where.query}")[0] == 403
        assert front.ask("DELETE", f"{where.path}?{where.query}")[0] == 403
        assert front.ask("GET", f"{where.path}?{where.query[:-1]}")[0] == 401
        assert front.ask("GET", path, Credentials(proving_name("127.0.0.1"), "x"))[0] == 401
        assert front.ask("GET", path, Credentials(PROVING, "x"))[0] == 401
    assert front.ask("GET", f"{where.path}?{where.query}")[0] == 401
    assert service.nameless(here) == service.pair(here)


def test_whoever_names_the_server_never_meets_the_ca_to_come(
    front: Loopback, tmp_path: Path
) -> None:
    """Nor after the front is started anew amid the proof, or the usual certificate renewed."""
    here = front.settings
    succession.make(here, ["127.0.0.1"])

    def issuers() -> tuple[str, str]:
        """Who signed what is shown with a server name, and without one."""
        names = here.registry.host, "127.0.0.1"
        shown = [presented.chain("127.0.0.1", one, here.registry.port, 5)[0] for one in names]
        return certificates.facts(shown[0]).issuer, certificates.facts(shown[1]).issuer

    old, heir = (certificates.load_certificates(one.encode())[0].subject.rfc4514_string()
                 for one in (pki.ca_pem(here), succession.pem(here)))  # fmt: skip
    assert old != heir
    with proving.shown(here):
        assert issuers() == (old, heir)
        front.renew()
        assert issuers() == (old, heir)
        front.stop("front")
        front.start("front")
        ready(front)
        assert issuers() == (old, heir)


def test_a_front_of_an_earlier_moorage_is_told_to_be_renewed_first(
    front: Loopback, tmp_path: Path
) -> None:
    (service.etc(front.settings) / PAIRS).unlink()
    with pytest.raises(Refused) as problem:
        rotation.begin(means(nodes(front, tmp_path, "a")), [], [])
    assert problem.value.code == "front-outdated"
    front.stop("front")
    with pytest.raises(MoorageError) as silent:
        rotation.begin(means(nodes(front, tmp_path, "a")), [], [])
    assert silent.value.code == "front-silent"
