"""The registry: what is decided without an engine, then a real one on a free port."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound, NotFound

from agent.wire.report import HostResult
from moorage import images, registry
from moorage.docker import engine
from moorage.errors import MoorageError, Refused
from moorage.fleet.rollout import this_machine
from moorage.pki import registry as pki
from moorage.registry import client as https
from moorage.registry import container, handed, ports, service, spec
from moorage.registry.front import configuration
from moorage.registry.logins import users
from moorage.registry.logins.credentials import ensure, ensure_http_secret, folder
from moorage.settings import CertsSettings, Settings
from moorage.ui import UI
from moorage.walk import down, phase
from tests.ports import free_port
from tests.unit.elsewhere import project, registry_project

# -- without an engine -----------------------------------------------------------------------


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    login = ensure(project(tmp_path))
    assert login.password not in repr(login)
    made = spec.Spec("i", "sha256:0", {}, {spec.CONFIG: spec.config_yaml("c0ffee")})
    assert "c0ffee" not in repr(made)


def test_the_login_is_made_once_and_kept_private(tmp_path: Path) -> None:
    settings = project(tmp_path)
    with pytest.raises(Refused) as refused:
        registry.credentials(settings)
    assert refused.value.cure == "inv registry.up"
    login = ensure(settings)
    assert ensure(settings) == login == registry.credentials(settings)
    assert len(login.password) >= 32
    for path in folder(settings).iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert folder(settings).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("spoilt", ["", "\n", "a\nb\n", "x" * 73, "\x00\n"])
def test_a_spoilt_password_is_refused(tmp_path: Path, spoilt: str) -> None:
    settings = project(tmp_path)
    ensure(settings)
    (folder(settings) / "password").write_text(spoilt)
    with pytest.raises(Refused) as refused:
        registry.credentials(settings)
    assert refused.value.code == "credentials-unusable"


def test_a_spoilt_http_secret_is_made_anew(tmp_path: Path) -> None:
    settings = project(tmp_path)
    secret = ensure_http_secret(settings)
    assert ensure_http_secret(settings) == secret
    (folder(settings) / "http-secret").write_text("evil: yaml\n")
    assert set(ensure_http_secret(settings)) <= set("0123456789abcdef")


def test_another_certificate_or_option_gives_another_digest() -> None:
    one = spec.Spec("i", "sha256:0", {"name": "a"}, {"tls.crt": b"1"})
    assert one.digest == replace(one, image="renamed").digest
    assert one.digest != replace(one, image_id="sha256:1").digest
    assert one.digest != replace(one, options={"name": "b"}).digest
    assert one.digest != replace(one, files={"tls.crt": b"2"}).digest


@pytest.mark.parametrize("listens_on", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_listener_is_found_with_its_process(listens_on: str) -> None:
    family = socket.AF_INET6 if ":" in listens_on else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((listens_on, 0))
        port = server.getsockname()[1]
        assert ports.listener("0.0.0.0", port) is None  # bound, but not listening yet
        server.listen()
        wanted = "::" if listens_on == "::1" else "0.0.0.0"
        found = ports.listener(wanted, port)
        assert found is not None
        assert found.pid == os.getpid()
        assert f"process {os.getpid()}" in found.describe()
        if listens_on == "127.0.0.1":
            assert ports.listener("127.0.0.2", port) is None


# -- with a real registry --------------------------------------------------------------------


@pytest.fixture(scope="module")
def standing(client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A registry that is up; tests put back what they change."""
    settings = registry_project(tmp_path_factory.mktemp("project"))
    pki.issue(settings)
    assert registry.up(settings, client, UI()).changed
    yield settings
    registry.down(settings, client, UI())


def container_of(settings: Settings, client: Any) -> Any:
    return client.containers.get(settings.registry.container)


def front_of(settings: Settings, client: Any) -> Any:
    return client.containers.get(f"{settings.registry.container}-front")


def both_of(settings: Settings, client: Any) -> tuple[Any, Any]:
    return container_of(settings, client), front_of(settings, client)


@pytest.mark.engine
def test_it_serves_tls_with_login_and_nothing_without(standing: Settings) -> None:
    login = registry.credentials(standing)
    assert https.ask(standing, "/v2/", login=login).status == 200
    assert https.ask(standing, "/v2/", login=None).status == 401
    wrong = replace(login, password="wrong")
    with pytest.raises(MoorageError) as refused:
        https.check_login(standing, wrong)
    assert refused.value.code == "registry-refuses"


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_below_1_2_is_refused(standing: Settings) -> None:
    context = ssl.create_default_context(cadata=pki.ca_pem(standing))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", standing.registry.port)) as raw,
        pytest.raises(OSError),
    ):
        context.wrap_socket(raw, server_hostname="localhost")


@pytest.mark.engine
def test_a_second_up_leaves_the_container_alone(standing: Settings, client: Any) -> None:
    before = both_of(standing, client)
    assert registry.pending(standing, client) == []
    status = registry.up(standing, client, UI())
    assert not status.changed
    assert status.healthy
    for was, now in zip(before, both_of(standing, client), strict=True):
        assert (now.id, now.attrs["State"]["StartedAt"]) == (
            was.id,
            was.attrs["State"]["StartedAt"],
        )


@pytest.mark.engine
def test_up_makes_the_login_of_nodes_and_makes_it_again_once_it_is_removed(
    standing: Settings, client: Any
) -> None:
    before = handed.to_nodes(standing)
    https.check_login(standing, before)
    refused = https.ask(standing, "/v2/a/blobs/uploads/", login=before, method="POST")
    assert refused.status == 403
    users.remove(standing, users.name_for(users.NODES))
    assert service.put_logins(standing)
    assert registry.pending(standing, client)
    assert registry.up(standing, client, UI()).changed
    https.check_login(standing, handed.to_nodes(standing))
    assert handed.to_nodes(standing) != before
    assert https.ask(standing, "/v2/", login=before).status == 401
    assert registry.pending(standing, client) == []


@pytest.mark.engine
def test_no_secret_is_in_docker_inspect_or_the_log(standing: Settings, client: Any) -> None:
    login = registry.credentials(standing)
    https.check_login(standing, login)
    both = both_of(standing, client)
    seen = "".join(json.dumps(one.attrs) + one.logs().decode() for one in both)
    secrets = folder(standing)
    key = (standing.certs_dir / "registry.key").read_text().splitlines()[1]
    hashed = (secrets / "front" / "logins.map").read_text().split(":")[2]
    assert len(hashed) == 64
    basic = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    for secret in (
        login.password,
        basic,
        key,
        hashed,
        (secrets / "http-secret").read_text().strip(),
        (secrets / "front-key").read_text().strip(),
    ):
        assert secret not in seen


@pytest.mark.engine
def test_they_run_as_nobody_and_can_do_nothing_else(standing: Settings, client: Any) -> None:
    for found in both_of(standing, client):
        host = found.attrs["HostConfig"]
        assert found.attrs["Config"]["User"].split(":")[0] != "0"
        assert host["CapDrop"] == ["ALL"]
        assert host["ReadonlyRootfs"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert found.labels[engine.LABEL_PROJECT] == str(standing.root)
    front = front_of(standing, client)
    assert front.exec_run(["test", "-r", "/etc/moorage/tls.pem"]).exit_code == 0
    assert container_of(standing, client).exec_run(["ls", "/etc/moorage"]).output == b"config.yml\n"
    for place in ("etc", "front"):
        for path in (folder(standing) / place).iterdir():
            assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.engine
def test_the_registry_behind_answers_nobody_but_the_front(standing: Settings, client: Any) -> None:
    found = container_of(standing, client)
    assert set(found.attrs["HostConfig"]["PortBindings"]) == {"5001/tcp"}
    listening = found.exec_run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).output.decode()
    ports_open = {int(line.split()[1].split(":")[1], 16) for line in listening.splitlines()
                  if line.split()[3] == "0A"}  # fmt: skip
    assert ports_open == {5001}
    assert (folder(standing) / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.engine
def test_metrics_are_on_loopback_alone(standing: Settings, client: Any) -> None:
    url = f"http://127.0.0.1:{standing.registry.metrics_port}"
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        assert b"registry_" in answer.read()
    bound = container_of(standing, client).ports["5001/tcp"]
    assert [mapping["HostIp"] for mapping in bound] == ["127.0.0.1"]


@pytest.mark.engine
def test_its_health_check_works_inside(standing: Settings, client: Any) -> None:
    for found in both_of(standing, client):
        probe = found.attrs["Config"]["Healthcheck"]["Test"][1]
        assert found.exec_run(["sh", "-c", probe]).exit_code == 0
        broken = probe.replace("5001", "5009")
        assert found.exec_run(["sh", "-c", broken]).exit_code != 0


@pytest.mark.engine
def test_a_neighbour_on_the_bridge_reaches_it(standing: Settings, client: Any) -> None:
    image = container_of(standing, client).attrs["Image"]
    networks = container_of(standing, client).attrs["NetworkSettings"]["Networks"]
    gateway = networks["bridge"]["Gateway"]
    port = standing.registry.port
    client.containers.run(
        image,
        entrypoint=["bash", "-c", f"exec 3<>/dev/tcp/{gateway}/{port}"],
        command=[],
        remove=True,
    )


@pytest.mark.engine
def test_push_is_found_again_and_deletion_is_allowed(standing: Settings, client: Any) -> None:
    images.build(standing, client, UI().progress)
    try:
        pushed = images.push(standing, client, UI().progress)
        assert pushed.changed
        assert pushed.digest.startswith("sha256:")
        again = images.push(standing, client, UI().progress)
        assert (again.digest, again.changed) == (pushed.digest, False)
        assert images.pull(standing, client, UI().progress) < 60
        login = registry.credentials(standing)
        path = f"/v2/{standing.image.name}/manifests/{pushed.digest}"
        assert https.ask(standing, path, login=login, method="DELETE").status == 202
        assert images.push(standing, client, UI().progress).changed
    finally:
        client.images.remove(standing.image_reference, force=True)


@pytest.mark.engine
def test_a_wrong_login_fails_the_push_in_words(standing: Settings, client: Any) -> None:
    path = folder(standing) / "password"
    right = path.read_text()
    images.build(standing, client, UI().progress)
    try:
        path.write_text("wrong\n")
        for attempt in (images.push, images.pull):
            with pytest.raises(MoorageError) as failed:
                attempt(standing, client, UI().progress)
            assert failed.value.code in ("registry-refuses", "login-refused")
            assert failed.value.cure
    finally:
        path.write_text(right)
        client.images.remove(standing.image_reference, force=True)


@pytest.mark.engine
def test_a_new_certificate_is_served_at_once(standing: Settings, client: Any) -> None:
    renamed = replace(standing, certs=CertsSettings(names=("extra.lab.internal",)))
    before = [one.attrs["State"]["StartedAt"] for one in both_of(standing, client)]
    pki.issue(renamed)
    assert registry.pending(renamed, client)
    assert registry.up(renamed, client, UI()).changed
    assert [one.attrs["State"]["StartedAt"] for one in both_of(standing, client)] == before
    served = ssl.get_server_certificate(("127.0.0.1", standing.registry.port))
    assert served.strip() == (standing.certs_dir / "registry.crt").read_text().strip()
    pki.issue(standing)
    registry.up(standing, client, UI())


@pytest.mark.engine
def test_a_configuration_that_haproxy_refuses_is_never_put_in_place(
    standing: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(standing) / "front" / "haproxy.cfg"
    good, serving = path.read_bytes(), front_of(standing, client).attrs["State"]["StartedAt"]
    with monkeypatch.context() as patch:
        patch.setattr(service, "haproxy_cfg", lambda *_, **__: b"frontend x\n    nonsense\n")
        with pytest.raises(MoorageError) as refused:
            registry.up(standing, client, UI())
    assert refused.value.code == "front-refuses"
    assert "nonsense" in refused.value.cause
    assert path.read_bytes() == good
    assert front_of(standing, client).attrs["State"]["StartedAt"] == serving
    https.check_login(standing, registry.credentials(standing))


@pytest.mark.engine
def test_another_configuration_is_read_while_the_front_serves(
    standing: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = (
        configuration.haproxy_cfg,
        front_of(standing, client).attrs["State"]["StartedAt"],
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            service,
            "haproxy_cfg",
            lambda *a, **k: real(*a, **k).replace(b'realm="Moorage"', b'realm="Other"'),
        )
        assert registry.up(standing, client, UI()).changed
        deadline = time.monotonic() + 10
        while (
            "Other"
            not in (said := https.ask(standing, "/v2/", login=None)).headers["www-authenticate"]
        ):
            assert time.monotonic() < deadline, said
    assert front_of(standing, client).attrs["State"]["StartedAt"] == started
    assert registry.up(standing, client, UI()).changed


@pytest.mark.engine
def test_a_stopped_container_is_started_and_not_made_anew(standing: Settings, client: Any) -> None:
    before = container_of(standing, client)
    before.stop(timeout=5)
    status = registry.status(standing, client)
    assert (status.running, status.healthy) == (False, False)
    assert "exited" in status.problem
    assert registry.up(standing, client, UI()).changed
    assert container_of(standing, client).id == before.id


@pytest.mark.engine
def test_a_taken_port_names_its_holder(standing: Settings, client: Any, tmp_path: Path) -> None:
    other = registry_project(tmp_path)
    pki.issue(other)
    with socket.create_server(("127.0.0.1", other.registry.port)):
        for attempt in (
            lambda: registry.pending(other, client),
            lambda: registry.up(other, client, UI()),
        ):
            with pytest.raises(Refused) as refused:
                attempt()
            assert refused.value.code == "port-taken"
            assert f"process {os.getpid()}" in refused.value.cause
            assert "registry.port" in refused.value.cure
    taken = replace(other, registry=replace(other.registry, port=standing.registry.port))
    with pytest.raises(Refused) as refused:
        registry.up(taken, client, UI())
    assert standing.registry.container in refused.value.cause
    assert not client.containers.list(all=True, filters={"name": other.registry.container})


@pytest.mark.engine
def test_a_port_that_a_connection_has_is_no_fault_of_ours(tmp_path: Path, client: Any) -> None:
    made = registry_project(tmp_path)
    pki.issue(made)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as outgoing:
        outgoing.bind(("127.0.0.1", made.registry.port))
        outgoing.connect(server.getsockname())
        with pytest.raises(MoorageError) as problem:
            registry.up(made, client, UI())
    assert problem.value.code == "registry-not-started"
    assert "a connection of this machine" in problem.value.cure
    registry.down(made, client, UI())
    assert not client.containers.list(all=True, filters={"name": made.registry.container})


@pytest.mark.engine
def test_a_strangers_container_is_refused_and_stays(
    standing: Settings, client: Any, tmp_path: Path
) -> None:
    other = registry_project(tmp_path, container=standing.registry.container)
    pki.issue(other)
    for attempt in (registry.up, registry.down):
        with pytest.raises(Refused) as refused:
            attempt(other, client, UI())
        assert refused.value.code == "name-taken"
        assert str(standing.root) in refused.value.cause
    assert registry.status(standing, client).healthy


@pytest.mark.engine
def test_down_beside_anothers_registry_leaves_it_and_its_trust(
    standing: Settings,
    client: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    named = standing.registry
    other = project(tmp_path, registry=named)
    pki.issue(other)
    monkeypatch.setattr(this_machine, "DOCKER_CERTS", tmp_path / "certs.d")
    trust = tmp_path / "certs.d" / standing.registry_name
    trust.mkdir(parents=True)
    (trust / "ca.crt").write_text(pki.ca_pem(standing))
    asked: list[str] = []

    def untrusts(*_: object) -> HostResult:
        asked.append("untrust")
        return HostResult(host="localhost", status="unchanged")

    monkeypatch.setattr(this_machine, "untrust_this_machine", untrusts)
    walk = phase.Walk(other, UI())
    assert not down._this_machine(walk)
    assert not down._registry(walk)
    said = " ".join(capfd.readouterr().err.split())
    assert f"goes on trusting {standing.registry_name}: the checkout in {standing.root}" in said
    assert f"the container {named.container} is left alone" in said
    assert "inv down" not in said
    assert "registry.down" not in said
    assert asked == []
    assert registry.status(standing, client).healthy
    # A trust of ours, which its own registry has left behind, ends as ever.
    (trust / "ca.crt").write_text(pki.ca_pem(other))
    down._this_machine(walk)
    assert asked == ["untrust"]


@pytest.mark.engine
def test_a_container_of_a_checkout_that_is_gone_goes_by_the_cure(
    standing: Settings, client: Any, tmp_path: Path
) -> None:
    gone = tmp_path / "it's gone"
    other = registry_project(tmp_path)
    name, image = other.registry.container, container_of(standing, client).image.id
    left = client.containers.create(image, name=name, labels={engine.LABEL_PROJECT: str(gone)})
    try:
        with pytest.raises(Refused) as refused:
            registry.pending(other, client)
        assert refused.value.code == "name-taken"
        assert "no longer here" in refused.value.cause
        cure, _, other_way = refused.value.cure.partition("; or ")
        assert "registry.container" in other_way
        subprocess.run(["sh", "-c", cure], check=True, capture_output=True)
        assert not client.containers.list(all=True, filters={"name": name})
    finally:
        with suppress(NotFound):
            left.remove(force=True)


@pytest.mark.engine
def test_without_certificates_nothing_is_made(client: Any, tmp_path: Path) -> None:
    settings = registry_project(tmp_path)
    with pytest.raises(Refused) as refused:
        registry.up(settings, client, UI())
    assert refused.value.code == "no-certificates"
    assert not client.containers.list(all=True, filters={"name": settings.registry.container})


@pytest.mark.engine
def test_an_image_that_goes_before_its_container_is_made_is_made_again(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another checkout's `down --purge` takes what no container has yet."""
    settings = registry_project(tmp_path)
    pki.issue(settings)
    start, gone = container._start, [ImageNotFound("No such image")]

    def started(*given: Any) -> None:
        if gone:
            raise gone.pop()
        start(*given)

    monkeypatch.setattr(container, "_start", started)
    try:
        assert registry.up(settings, client, UI()).changed
    finally:
        registry.down(settings, client, UI())
    assert not gone


@pytest.mark.engine
def test_down_keeps_the_data_and_purge_deletes_it(client: Any, tmp_path: Path) -> None:
    settings = registry_project(tmp_path)
    pki.issue(settings)
    registry.up(settings, client, UI())
    login = registry.credentials(settings)
    assert registry.down(settings, client, UI())
    assert not registry.down(settings, client, UI())
    assert settings.registry_data.exists()
    registry.up(settings, client, UI())
    assert registry.credentials(settings) == login
    assert registry.down(settings, client, UI(), purge=True)
    assert not settings.registry_data.exists()
    assert not folder(settings).exists()
    assert (settings.certs_dir / "ca.key").exists()


@pytest.mark.engine
def test_a_registry_that_dies_says_why(client: Any, tmp_path: Path) -> None:
    settings = registry_project(tmp_path)
    pki.issue(settings)
    # As a disk with a foreign owner: the storage cannot be a file.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec, "_CONFIG", spec._CONFIG.replace("version: 0.1", "version: 9.9"))
        with pytest.raises(MoorageError) as failed:
            registry.up(settings, client, UI())
    assert failed.value.code == "registry-died"
    assert "version" in failed.value.cause
    assert registry.up(settings, client, UI()).healthy
    registry.down(settings, client, UI())


@pytest.mark.engine
def test_logs_come_by_the_line(standing: Settings, client: Any) -> None:
    https.check_login(standing, registry.credentials(standing))
    lines = list(registry.logs(standing, client, tail=5))
    assert 1 <= len(lines) <= 5
    assert any("/v2/" in line for line in lines)


@pytest.mark.engine
def test_curl_and_openssl_accept_it(standing: Settings) -> None:
    done = subprocess.run(
        [
            "openssl", "s_client", "-connect", f"127.0.0.1:{standing.registry.port}",
            "-servername", "localhost", "-verify_hostname", "localhost",
            "-CAfile", str(standing.certs_dir / "ca.crt"), "-verify_return_error", "-brief",
        ],
        input=b"", capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Verification: OK" in done.stderr


def test_nothing_listening_is_told_as_such(tmp_path: Path) -> None:
    settings = registry_project(tmp_path)
    pki.issue(settings)
    login = ensure(settings)
    with pytest.raises(MoorageError) as failed:
        https.check_login(settings, login)
    assert failed.value.code == "registry-down"
    with socket.create_server(("127.0.0.1", settings.registry.port)):
        with pytest.raises(MoorageError) as failed:
            https.check_login(settings, login, timeout=0.3)
        assert failed.value.code == "registry-timeout"


def test_an_engine_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(Refused) as refused:
        registry.up(project(tmp_path), None, UI())  # type: ignore[arg-type]
    assert refused.value.code == "engine-elsewhere"
