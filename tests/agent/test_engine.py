"""Whole operations on a laid-out node: what happens in which order, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.wire.faults import AgentError, TrustError
from tests.agent.conftest import Box, spelled

CERTS = "/etc/containerd/certs.d/my.registry.io"
CONFIG = "/etc/containerd/config.toml"


@pytest.fixture
def node(box: Box) -> Box:
    return box.with_containerd()


def status_of(node: Box) -> dict[str, Any]:
    events = node.run(node.engine().status())["events"]
    return next(event for event in events if event["event"] == "status")


def test_apply_trusts_restarts_once_and_proves_it(node: Box) -> None:
    result = node.apply()
    assert result["status"] == "changed"
    assert result["verified"] is True
    assert result["pull_seconds"] is not None
    assert result["restarts"] == ["containerd.service"] == node.restarted
    assert [one["path"] for one in result["changes"]] == [
        "/etc/hosts",
        *(f"{place}{name}" for place in spelled(f"{CERTS}/") for name in ("ca.crt", "hosts.toml")),
        CONFIG,
    ]
    assert node.prover.asked == ["beforehand", "cri", "registry", "pull"]
    kinds = [event["event"] for event in result["events"]]
    assert kinds[0] == "facts"
    assert kinds[-1] == "result"
    assert kinds.index("restart") > max(i for i, kind in enumerate(kinds) if kind == "change")


def test_cri_is_asked_for_once_after_a_restart(node: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its coming back is the proof; where nothing was restarted, the proof asks itself."""
    serves: list[str] = []

    def asked(socket_path: str) -> bool:
        serves.append(node.prover.asked[-1] if node.prover.asked else "")
        return True

    monkeypatch.setattr(node.prover, "cri_serves", asked)
    node.apply()
    assert serves == ["beforehand"]
    node.apply()
    assert len(serves) == 2


def test_a_second_apply_changes_and_restarts_nothing(node: Box) -> None:
    node.apply()
    node.restarted.clear()
    files = node.files()
    result = node.apply()
    assert (result["status"], result["changes"], result["restarts"]) == ("unchanged", [], [])
    assert result["verified"] is True
    assert node.files() == files
    assert node.restarted == []


def test_untrust_gives_every_byte_back(node: Box) -> None:
    files, folders = node.files(), node.folders()
    node.apply()
    result = node.untrust()
    assert result["status"] == "changed"
    assert result["restarts"] == ["containerd.service"]
    assert (node.files(), node.folders()) == (files, folders)
    assert node.untrust()["status"] == "unchanged"


def test_untrust_needs_no_ca(node: Box) -> None:
    files = node.files()
    node.apply()
    assert node.untrust(registry={"ca": None}, verify=None)["status"] == "changed"
    assert node.files() == files


def test_only_files_under_config_path_need_no_restart(node: Box) -> None:
    config = (
        b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/certs"\n'
    )
    node.write(CONFIG, config)
    result = node.apply()
    assert result["restarts"] == []
    assert node.read("/certs/my.registry.io/hosts.toml")
    assert node.read(CONFIG) == config
    assert node.untrust()["restarts"] == []


def test_a_dry_run_shows_every_change_and_touches_nothing(node: Box) -> None:
    files = node.files()
    result = node.apply(dry_run=True)
    assert result["status"] == "changed"
    assert result["restarts"] == ["containerd.service"]
    diffs = [event["diff"] for event in result["events"] if event["event"] == "change"]
    assert len(diffs) == 6
    assert "+10.0.0.1\tmy.registry.io # moorage" in diffs[0]
    assert node.files() == files
    assert not (node.root / "var").exists()
    assert (node.prover.asked, node.restarted) == ([], [])


@pytest.mark.parametrize(
    "error",
    [
        TrustError("x509-unknown-authority", "no trust", "another CA", "look"),
        AgentError("login-refused", "no login", "wrong password", "look"),
        AgentError("registry-refused", "nothing there", "down", "start it"),
    ],
)
def test_what_the_registry_says_beforehand_stops_the_run_with_nothing_changed(
    node: Box, error: AgentError
) -> None:
    files = node.files()
    node.prover.errors["beforehand"] = error
    result = node.apply()
    assert (result["status"], result["code"]) == ("failed", error.code)
    assert (result["changes"], node.restarted) == ([], [])
    assert node.files() == files


@pytest.mark.parametrize("step", ["cri", "registry", "pull"])
def test_a_failure_of_trust_is_rolled_back(node: Box, step: str) -> None:
    files, folders = node.files(), node.folders()
    node.prover.errors[step] = TrustError("x509-unknown-authority", "no", "c", "c")
    if step == "cri":  # as it was before, CRI comes back
        del node.prover.errors[step]
        node.prover.wait_for_cri = _fail_once()  # type: ignore[method-assign,assignment]
    result = node.apply()
    assert result["status"] == "rolled-back"
    assert result["verified"] is False
    assert result["changes"] == []
    assert node.restarted == ["containerd.service"] * 2
    assert (node.files(), node.folders()) == (files, folders)


def _fail_once() -> Callable[[str], None]:
    asked: list[str] = []

    def wait(socket_path: str) -> None:
        asked.append(socket_path)
        if len(asked) == 1:
            raise TrustError("cri-not-serving", "no", "c", "c")

    return wait


def test_a_failure_that_is_not_about_trust_keeps_what_is_right(node: Box) -> None:
    node.prover.errors["pull"] = AgentError("image-missing", "no image", "c", "c")
    result = node.apply()
    assert (result["status"], result["code"]) == ("failed", "image-missing")
    assert len(result["changes"]) == 6
    assert node.read(f"{CERTS}/hosts.toml")
    assert node.restarted == ["containerd.service"]
    del node.prover.errors["pull"]
    assert node.apply()["status"] == "unchanged"


def test_containerd_that_does_not_start_is_rolled_back(node: Box) -> None:
    files = node.files()
    engine = node.engine()
    starts: list[str] = []

    def restart(name: str, timeout: float = 0) -> None:
        starts.append(name)
        if len(starts) == 1:
            raise AgentError("restart-failed", "does not start", "c", "c")

    engine._host.restart = restart  # type: ignore[method-assign]
    result = node.run(engine.apply(node.plan()))
    assert (result["status"], result["code"]) == ("rolled-back", "restart-failed")
    assert starts == ["containerd.service"] * 2
    assert node.files() == files


def test_a_rollback_that_fails_says_so_and_recover_finishes_it(node: Box) -> None:
    files = node.files()
    engine = node.engine()

    def never(name: str, timeout: float = 0) -> None:
        raise AgentError("restart-failed", "does not start", "c", "c")

    engine._host.restart = never  # type: ignore[method-assign]
    result = node.run(engine.apply(node.plan()))
    assert (result["status"], result["code"]) == ("failed", "rollback-failed")
    assert "nodes.recover" in result["error"]["cure"]
    assert status_of(node)["interrupted"] == "apply"
    recovered = node.run(node.engine().recover())
    assert recovered["error"] is None
    assert node.files() == files
    assert status_of(node)["interrupted"] is None


def test_an_operation_that_is_under_way_is_not_told_as_cut_off(node: Box) -> None:
    engine = node.engine()
    told: list[dict[str, Any]] = []

    def restart(name: str, timeout: float = 0) -> None:
        told.append(status_of(node))  # another agent, asked amid this one's apply

    engine._host.restart = restart  # type: ignore[method-assign]
    assert node.run(engine.apply(node.plan()))["status"] == "changed"
    assert [(one["interrupted"], one["holder"]["operation"]) for one in told] == [(None, "apply")]


def test_without_restart_everything_is_prepared_and_made_up_for_later(node: Box) -> None:
    result = node.apply(options={"restart": False})
    assert (result["status"], result["restarts"], node.restarted) == ("changed", [], [])
    assert result["verified"] is None
    notes = [event["message"] for event in result["events"] if event["event"] == "note"]
    assert any("restart of containerd.service is waiting" in note for note in notes)
    assert status_of(node)["waiting"] == ("containerd.service",)
    later = node.apply()
    assert (later["status"], later["changes"]) == ("changed", [])
    assert node.restarted == ["containerd.service"]
    assert node.apply()["restarts"] == []


def test_two_registries_share_one_config_path(node: Box) -> None:
    files, folders = node.files(), node.folders()
    other = {"host": "two.registry.io", "port": 5000, "address": "10.0.0.2"}
    node.apply()
    second = node.apply(registry=other, verify=None)
    assert second["restarts"] == []
    first_out = node.untrust()
    assert first_out["restarts"] == []
    assert b"config_path" in (node.read(CONFIG) or b"")
    assert node.read("/etc/containerd/certs.d/two.registry.io:5000/ca.crt")
    last_out = node.untrust(registry=other, verify=None)
    assert last_out["restarts"] == ["containerd.service"]
    assert (node.files(), node.folders()) == (files, folders)


def test_what_others_wrote_into_config_toml_since_stays(node: Box) -> None:
    before = node.read(CONFIG) or b""
    node.apply()
    added = b'\n[plugins."io.containerd.grpc.v1.cri".containerd]\n  snapshotter = "native"\n'
    node.write(CONFIG, (node.read(CONFIG) or b"") + added)
    node.untrust()
    assert node.read(CONFIG) == before + added


def test_drift_is_mended_and_the_newest_original_given_back(node: Box) -> None:
    node.apply()
    theirs = b"version = 2\n# a package upgrade was here\n"
    node.write(CONFIG, theirs)
    result = node.apply()
    assert [one["path"] for one in result["changes"]] == [CONFIG]
    node.untrust()
    assert node.read(CONFIG) == theirs


def test_docker_that_does_not_run_is_set_up_and_not_proven(box: Box) -> None:
    result = box.with_docker().apply()
    assert (result["status"], result["verified"]) == ("changed", None)
    assert [one["part"] for one in result["unproven"]] == ["docker"]
    assert box.prover.asked == ["beforehand", "registry"]
    assert result["pull_seconds"] is None


def test_containerd_that_only_serves_docker_is_left_alone(node: Box) -> None:
    node.with_docker().write(CONFIG, b'disabled_plugins = ["cri"]\n')
    result = node.apply()
    assert result["status"] == "changed"
    assert all("containerd" not in one["path"] for one in result["changes"])
    assert any("serves Docker" in event.get("message", "") for event in result["events"])


def test_status_tells_what_others_changed(node: Box) -> None:
    node.apply()
    node.write("/etc/hosts", b"")
    (node.root / CERTS[1:] / "ca.crt").unlink()
    trusted = status_of(node)["trusted"]
    states = {one["path"]: one["state"] for one in trusted[0]["files"]}
    assert states["/etc/hosts"] == "changed"
    assert states[f"{CERTS}/ca.crt"] == "missing"
    assert states[CONFIG] == "as-left"


def test_verify_changes_nothing(node: Box) -> None:
    files = node.files()
    result = node.run(node.engine().verify(node.plan()))
    assert (result["status"], result["verified"]) == ("unchanged", True)
    node.prover.errors["pull"] = TrustError("x509-unknown-authority", "no", "c", "c")
    result = node.run(node.engine().verify(node.plan()))
    assert (result["status"], result["verified"]) == ("failed", False)
    assert node.files() == files


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("echo 'containerd: no such plugin' >&2; exit 1", "candidate-refused"),
        ('echo "oom_score = 5"; cat "$2"', "candidate-differs"),
        ("printf 'version = 2\\n'", "candidate-differs"),
    ],
)
def test_a_candidate_that_the_nodes_own_containerd_makes_more_or_less_of_is_not_put_in_place(
    node: Box, answer: str, code: str
) -> None:
    """What stands in for containerd answers so for the candidate alone."""
    program = node.root / "usr/bin/containerd"
    judged = f'case "$2" in */active/scratch/*) {answer};; *) cat "$2";; esac'
    program.write_text(program.read_text().replace('cat "$2"', judged))
    before, folders = node.files(), node.folders()
    result = node.apply()
    assert (result["code"], result["changes"]) == (code, [])
    assert (node.files(), node.folders()) == (before, folders)
    assert node.restarted == []
