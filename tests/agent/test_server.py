"""The resident agent over its own channel: the real server, TLS and certificates on loopback."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from agent.wire.report import event_to_json
from tests.agent.conftest import Box
from tests.agent.fleet import Fleet
from tests.agent.resident import Resident


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture
def resident(box: Box, fleet: Fleet) -> Iterator[Resident]:
    made = Resident(box.with_containerd(), fleet)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def test_apply_status_and_untrust_tell_the_same_events_as_the_command_line(
    resident: Resident,
) -> None:
    box = resident.box
    before = box.files()
    told = resident.events("/v1/apply", box.document())
    assert (told[0]["event"], told[-1]["event"], told[-1]["status"]) == (
        "facts", "result", "changed",
    )  # fmt: skip
    assert b"config_path" in (box.read("/etc/containerd/config.toml") or b"")
    assert resident.events("/v1/apply", box.document())[-1]["status"] == "unchanged"
    status = resident.events("/v1/status")
    assert (status[0]["event"], status[-1]["event"]) == ("resident", "result")
    assert status[0]["last"]["apply"]["status"] == "unchanged"
    trusted = next(event["trusted"] for event in status if event["event"] == "status")
    assert trusted[0]["registry"] == "my.registry.io"
    records = resident.events("/v1/history")[0]["records"]
    assert [record["operation"] for record in records] == ["apply"]
    assert resident.events("/v1/untrust", box.document())[-1]["status"] == "changed"
    assert box.files() == before


def test_a_dry_run_tells_and_changes_nothing(resident: Resident) -> None:
    before = resident.box.files()
    told = resident.events("/v1/apply?dry_run=true", resident.box.document())
    assert told[-1]["changes"]
    assert resident.box.files() == before
    assert not list((resident.box.root / "var/lib/moorage").glob("plans/*"))


def test_no_password_reaches_the_disk_or_the_log(resident: Resident) -> None:
    resident.events("/v1/apply", resident.box.document())
    kept = [path for path in (resident.box.root / "var").rglob("*") if path.is_file()]
    assert [path for path in kept if path.parent.name == "plans"]
    assert not [path for path in kept if b"pass-word-1" in path.read_bytes()]
    assert "pass-word-1" not in resident.words()


@pytest.mark.parametrize("path", ["/v1/apply", "/v1/apply?dry_run=true", "/v1/untrust"])
def test_an_operator_from_before_this_agent_changes_nothing(resident: Resident, path: str) -> None:
    body = json.dumps(resident.box.document()).encode()
    before = resident.box.files()
    status, said = resident.ask(
        "POST", path, body, Content_Type="application/json", Moorage_Operator="0.0.9"
    )
    fault = json.loads(said)["error"]
    assert (status, fault["code"]) == (409, "agent-newer")
    assert "git pull" in fault["cure"]
    assert resident.box.files() == before
    for theirs in ("0.1.0", "0.10.0", ""):
        status, said = resident.ask(
            "POST", "/v1/apply?dry_run=true", body, None, Content_Type="application/json",
            **({"Moorage_Operator": theirs} if theirs else {}),
        )  # fmt: skip
        assert status == 200, said


def test_a_status_starts_no_process_once_the_runtimes_are_known(resident: Resident) -> None:
    resident.events("/v1/apply", resident.box.document())
    tried = resident.box.write("/tmp/tried", b"")
    program = resident.box.root / "usr/bin/containerd"
    program.write_text(program.read_text().replace("\n", f"\necho >> {tried}\n", 1))
    first, second = resident.events("/v1/status"), resident.events("/v1/status")
    assert tried.read_bytes() == b""
    assert [event["event"] for event in second] == ["resident", "facts", "status", "result"]
    for told in (first, second):
        assert abs(told[2].pop("time") - time.time()) < 60
    assert first[1:] == second[1:]
    (resident.box.root / "etc/hosts").write_bytes(b"127.0.0.1 localhost\n")
    files = resident.events("/v1/status")[2]["trusted"][0]["files"]
    assert {"path": "/etc/hosts", "state": "changed"} in files
    # Another program in the place of the old one, as a package manager puts it there.
    newer = program.with_name("containerd.new")
    newer.write_text(program.read_text().replace("1.7.24", "1.7.99"))
    newer.chmod(0o755)
    newer.rename(program)
    assert resident.events("/v1/status")[1]["runtime"] == "containerd 1.7.99"


def test_a_status_and_an_operation_of_its_own_tell_the_same(resident: Resident) -> None:
    """From the loop and, where a note is damaged, from a process that can fail."""
    resident.events("/v1/apply", resident.box.document())
    told = resident.events("/v1/status")
    kept = list(resident.box.engine().status())
    assert told[2]["trusted"] == json.loads(json.dumps(event_to_json(kept[1])))["trusted"]
    newest = sorted((resident.box.root / "var/lib/moorage/history").iterdir())[-1]
    newest.write_bytes(b"{")
    result = resident.events("/v1/status")[-1]
    assert (result["status"], result["error"]["code"]) == ("failed", "state-damaged")


def test_metrics_are_prometheus_text(resident: Resident) -> None:
    resident.events("/v1/apply", resident.box.document())
    text = resident.ask("GET", "/metrics")[1].decode()
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['moorage_operations_total{operation="apply",status="changed"}'] == "1"
    assert samples["moorage_drift_state"] == "0"
    assert int(samples["moorage_certificate_end_timestamp_seconds"]) > time.time()


def test_a_viewer_sees_what_openapi_opens_to_it_and_nothing_else(resident: Resident) -> None:
    viewer = resident.fleet.client(resident.fleet.issue("viewer", "urn:moorage:viewer"))
    served = json.loads(resident.ask("GET", "/v1/openapi.json")[1])["paths"]
    opened = {
        (method.upper(), path): "security" in found
        for path, methods in served.items()
        for method, found in methods.items()
    }
    assert {route for route, is_open in opened.items() if is_open} == {
        ("GET", "/healthz"), ("GET", "/metrics"), ("GET", "/v1/status"),
    }  # fmt: skip
    for (method, path), is_open in opened.items():
        body = b"{}" if method == "POST" else None
        status, said = resident.ask(method, path, body, viewer)
        assert status == (200 if is_open else 403), (path, said)
        assert is_open or json.loads(said)["error"]["code"] == "viewer-looks-only"


def test_a_viewer_ends_no_trial_and_raises_no_generation(resident: Resident) -> None:
    resident.home.trial.write_bytes(b"1")
    viewer = resident.fleet.client(resident.fleet.issue("viewer", "urn:moorage:viewer"))
    assert resident.ask("GET", "/healthz", context=viewer)[0] == 200
    assert resident.home.trial.exists()
    assert resident.home.generation() == 0
    assert resident.ask("GET", "/healthz")[0] == 200  # an operator does both
    assert not resident.home.trial.exists()
    assert resident.home.generation() == 1


def samples(resident: Resident) -> dict[str, float]:
    text = resident.ask("GET", "/metrics")[1].decode()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_metrics_answer_whether_a_registry_is_trusted(resident: Resident) -> None:
    assert "moorage_registry_trusted" not in str(samples(resident))
    resident.events("/v1/apply", resident.box.document())
    found = samples(resident)
    mine = '{registry="my.registry.io"}'
    assert found[f"moorage_registry_trusted{mine}"] == found["moorage_node_in_order"] == 1
    assert abs(found[f"moorage_registry_ca_end_timestamp_seconds{mine}"] - time.time()) > 86400
    assert found['moorage_filesystem_size_bytes{folder="/"}'] > 0
    assert found[f"moorage_registry_reachable{mine}"] == 0  # nothing listens there
    resident.home.folder.parent.joinpath("plans").mkdir(exist_ok=True)
    for plan in resident.home.folder.parent.joinpath("plans").iterdir():
        plan.unlink()  # or the agent would put back what is hurt next
    path = "/etc/containerd/certs.d/my.registry.io/hosts.toml"
    resident.box.write(path, b"# hurt")
    found = samples(resident)
    assert found[f"moorage_registry_trusted{mine}"] == found["moorage_node_in_order"] == 0
    assert found['moorage_registry_files{registry="my.registry.io",state="changed"}'] == 1


def test_metrics_say_that_the_notes_are_damaged(resident: Resident) -> None:
    resident.events("/v1/apply", resident.box.document())
    for path in (resident.box.root / "var/lib/moorage/history").glob("*"):
        path.write_bytes(b"spoilt")
    found = samples(resident)
    assert found["moorage_state_damaged"] == 1
    assert "moorage_node_in_order" not in found


def test_a_client_that_goes_away_does_not_stop_an_apply(resident: Resident) -> None:
    box = resident.box
    program = box.root / "usr/bin/containerd"
    text = program.read_text().replace(
        'cat "$2"', 'case "$2" in *moorage*) sleep 1;; esac; cat "$2"'
    )
    program.write_text(text)
    body = json.dumps(box.document()).encode()
    line = resident.connect()
    line.sendall(
        b"POST /v1/apply HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    line.recv(100)
    line.close()
    deadline = time.monotonic() + 15
    while b"config_path" not in (box.read("/etc/containerd/config.toml") or b""):
        assert time.monotonic() < deadline, resident.words()
        time.sleep(0.05)


def test_sigterm_rolls_back_what_is_under_way_and_ends_cleanly(resident: Resident) -> None:
    box = resident.box
    program = box.root / "usr/bin/containerd"
    text = program.read_text().replace(
        'cat "$2"', 'case "$2" in *moorage*) sleep 9;; esac; cat "$2"'
    )
    program.write_text(text)
    before = box.files()
    body = json.dumps(box.document()).encode()
    line = resident.connect()
    line.sendall(
        b"POST /v1/apply HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    deadline = time.monotonic() + 10
    while not (box.root / "etc/containerd/certs.d").exists():
        assert time.monotonic() < deadline, resident.words()
        time.sleep(0.02)
    time.sleep(0.2)
    assert resident.stop() == 0
    assert box.files() == before
    assert "stopped" in resident.words()


def test_drift_is_put_back_within_five_seconds(resident: Resident) -> None:
    box = resident.box
    resident.events("/v1/apply", box.document())
    kept = box.files()
    (box.root / "etc/hosts").write_bytes(b"127.0.0.1\tlocalhost\n::1 ip6-localhost\n")
    deadline = time.monotonic() + 5
    while box.files() != kept:
        assert time.monotonic() < deadline, resident.words()
        time.sleep(0.05)
    time.sleep(0.7)
    drift = resident.events("/v1/status")[0]["drift"]
    assert (drift["state"], drift["healed"], drift["last_files"]) == ("watching", 1, ["/etc/hosts"])


def test_what_others_add_beside_ours_is_no_drift(resident: Resident) -> None:
    box = resident.box
    resident.events("/v1/apply", box.document())
    hosts = (box.read("/etc/hosts") or b"") + b"10.0.0.9 other\n"
    (box.root / "etc/hosts").write_bytes(hosts)
    time.sleep(2.5)
    assert box.read("/etc/hosts") == hosts
    drift = resident.events("/v1/status")[0]["drift"]
    assert (drift["state"], drift["healed"]) == ("watching", 0)


def test_after_an_untrust_nothing_is_put_back(resident: Resident) -> None:
    box = resident.box
    before = box.files()
    resident.events("/v1/apply", box.document())
    resident.events("/v1/untrust", box.document())
    time.sleep(1.5)
    assert box.files() == before


def test_a_certificate_of_a_later_generation_ends_the_earlier_ones(
    resident: Resident, fleet: Fleet
) -> None:
    assert resident.ask("GET", "/healthz")[0] == 200
    second = fleet.client(fleet.issue("second", "urn:moorage:operator:2"))
    assert resident.ask("GET", "/healthz", context=second)[0] == 200
    status, said = resident.ask("GET", "/healthz")
    assert (status, json.loads(said)["error"]["code"]) == (403, "not-an-operator")


def test_the_certificate_is_renewed_over_the_channel(resident: Resident, fleet: Fleet) -> None:
    (resident.box.root / "usr/bin/openssl").symlink_to(shutil.which("openssl") or "/none")
    status, said = resident.ask("POST", "/v1/certificate-request", b"")
    assert status == 200, said
    old = resident.connect().getpeercert(binary_form=True)
    request = json.loads(said)["request"].encode()
    renewed = {"certificate": fleet.sign(request).decode(), "until": int(time.time()) + 999}
    foreign = {**renewed, "certificate": fleet.issue("x").read_bytes().partition(b"-----BEGIN P")[0]
               .decode()}  # fmt: skip
    kind = "application/json"
    for document, code in ((foreign, 400), (renewed, 200)):
        body = json.dumps(document).encode()
        status, said = resident.ask("POST", "/v1/certificate", body, Content_Type=kind)
        assert status == code, said
    new = resident.connect().getpeercert(binary_form=True)
    assert new != old
    assert resident.events("/v1/status")[0]["certificate_ends"] == renewed["until"]
    resident.process.send_signal(signal.SIGHUP)
    assert resident.ask("GET", "/healthz")[0] == 200


def test_without_its_certificate_it_does_not_start_and_says_why(
    resident: Resident,
) -> None:
    resident.stop()
    resident.home.certificate.write_bytes(b"")
    with pytest.raises(AssertionError):
        resident.start()
    assert "adopt" in resident.words()
