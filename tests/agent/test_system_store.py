"""The host's own trust store, on trees of five families: only when asked, and undone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.agent.authority import Authority
from tests.agent.conftest import Box

SYSTEM: dict[str, Any] = {"parts": ["system"]}
WAYS = {
    "/usr/local/share/ca-certificates": "update-ca-certificates",
    "/etc/pki/ca-trust/source/anchors": "update-ca-trust",
    "/etc/pki/trust/anchors": "update-ca-certificates",
    "/etc/ca-certificates/trust-source/anchors": "update-ca-trust",
}


@pytest.mark.parametrize("folder", WAYS)
def test_the_ca_comes_into_the_familys_folder_and_its_tool_takes_it_up(
    box: Box, folder: str
) -> None:
    (box.root / folder[1:]).mkdir(parents=True)
    result = box.apply(**SYSTEM)
    path = f"{folder}/moorage-my.registry.io.crt"
    assert result["changes"] == [{"path": path, "action": "created"}]
    assert (box.read(path) or b"").decode() == box.ca
    assert box.apply(**SYSTEM)["status"] == "unchanged"
    box.untrust(**SYSTEM)
    assert box.read(path) is None
    assert box.restarted == [WAYS[folder]] * 2


def test_each_certificate_is_a_file_of_its_own(box: Box) -> None:
    (box.root / "usr/local/share/ca-certificates").mkdir(parents=True)
    both = box.ca + Authority("second").pem
    paths = [one["path"] for one in box.apply(**SYSTEM, registry={"ca": both})["changes"]]
    assert [path.rpartition("/")[2] for path in paths] == [
        "moorage-my.registry.io.crt",
        "moorage-my.registry.io-2.crt",
    ]
    assert all((box.read(path) or b"").count(b"BEGIN") == 1 for path in paths)


def test_it_is_never_touched_unasked(box: Box) -> None:
    (box.root / "usr/local/share/ca-certificates").mkdir(parents=True)
    result = box.with_docker().apply()
    assert not [one for one in result["changes"] if "ca-certificates" in one["path"]]
    assert box.restarted == []


def test_a_host_without_one_is_told_of(box: Box) -> None:
    result = box.apply(**SYSTEM)
    assert any("trust store" in one.get("message", "") for one in result["events"])


def test_a_failing_proof_takes_it_away_and_has_the_tool_run_again(box: Box) -> None:
    from agent.wire.faults import TrustError

    (box.root / "usr/local/share/ca-certificates").mkdir(parents=True)
    files = box.files()
    box.prover.errors["registry"] = TrustError("x509-unknown-authority", "no", "c", "c")
    assert box.apply(**SYSTEM)["status"] == "rolled-back"
    assert box.files() == files
    assert box.restarted == ["update-ca-certificates"] * 2
