"""Docker's folder: the CA in it, others' files beside it."""

from __future__ import annotations

from typing import Any

from tests.agent.authority import Authority
from tests.agent.conftest import Box

ONLY: dict[str, Any] = {"parts": ["docker"]}
CA = "/etc/docker/certs.d/my.registry.io/ca.crt"


def test_the_ca_comes_and_goes_with_its_folders(box: Box) -> None:
    box.with_docker()
    folders, files = box.folders(), box.files()
    result = box.apply(**ONLY)
    assert result["changes"] == [{"path": CA, "action": "created"}]
    assert result["restarts"] == []
    assert (box.read(CA) or b"").decode() == box.ca
    assert (box.root / CA[1:]).stat().st_mode & 0o777 == 0o644
    box.untrust(**ONLY)
    assert (box.folders(), box.files()) == (folders, files)


def test_a_port_is_part_of_the_folders_name(box: Box) -> None:
    box.with_docker().apply(registry={"port": 5000}, verify=None, **ONLY)
    assert box.read("/etc/docker/certs.d/my.registry.io:5000/ca.crt")


def test_the_same_ca_under_another_name_is_enough(box: Box) -> None:
    box.with_docker().write("/etc/docker/certs.d/my.registry.io/corp.crt", box.ca.encode())
    assert box.apply(**ONLY)["status"] == "unchanged"


def test_anothers_ca_stays_and_ours_comes_beside_it(box: Box) -> None:
    other = Authority("other").pem.encode()
    box.with_docker().write(CA, other)
    result = box.apply(**ONLY)
    assert [one["path"] for one in result["changes"]] == [CA.replace("ca.crt", "moorage-ca.crt")]
    assert box.read(CA) == other
    assert box.apply(**ONLY)["status"] == "unchanged"
    box.untrust(**ONLY)
    assert box.read(CA) == other
    assert box.read(CA.replace("ca.crt", "moorage-ca.crt")) is None


def test_a_new_ca_replaces_ours_and_untrust_still_takes_all_away(box: Box) -> None:
    before = box.with_docker().files()
    box.apply(**ONLY)
    second = Authority("second").pem
    assert box.apply(registry={"ca": second}, **ONLY)["changes"] == [
        {"path": CA, "action": "edited"}
    ]
    assert (box.read(CA) or b"").decode() == second
    box.untrust(**ONLY)
    assert box.files() == before


def test_what_others_put_into_our_file_stays(box: Box) -> None:
    box.with_docker().apply(**ONLY)
    other = Authority("other").pem.encode()
    box.write(CA, (box.read(CA) or b"") + other)
    box.untrust(**ONLY)
    assert box.read(CA) == other


def test_a_host_without_any_runtime_is_refused(box: Box) -> None:
    before = box.files()
    result = box.apply()
    assert (result["status"], result["code"]) == ("failed", "no-runtime")
    assert box.files() == before
    assert box.apply(parts=["hosts"])["status"] == "changed"
