"""Host keys are found where OpenSSH finds them, and nowhere else."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from moorage.files import append_line
from moorage.fleet.ssh.known_hosts import fingerprint, line_for, lookup, parse, read

ONE = b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"1" * 32
TWO = b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"2" * 32
KEY1, KEY2 = (base64.b64encode(blob).decode() for blob in (ONE, TWO))


def known(text: str, host: str = "node1.lan", port: int = 22, alias: str = "") -> list[bytes]:
    return [entry.blob for entry in lookup(parse(text), host, port, alias=alias).keys]


@pytest.mark.parametrize(
    "names",
    ["node1.lan", "other,node1.lan", "10.0.0.1,node1.lan", "*.lan", "node?.lan", "NODE1.lan"],
)
def test_a_name_or_a_pattern_matches(names: str) -> None:
    assert known(f"{names} ssh-ed25519 {KEY1} comment\n") == [ONE]


@pytest.mark.parametrize("names", ["node2.lan", "node1", "*.lan,!node1.lan", "[node1.lan]:2222"])
def test_what_is_another_host_does_not_match(names: str) -> None:
    assert known(f"{names} ssh-ed25519 {KEY1}\n") == []


def test_several_keys_of_one_kind_all_count() -> None:
    assert known(f"node1.lan ssh-ed25519 {KEY1}\nnode1.lan ssh-ed25519 {KEY2}\n") == [ONE, TWO]


def test_a_bad_line_spoils_only_itself() -> None:
    text = f"node1.lan ssh-ed25519\n# note\n\nx ssh-ed25519 ###\nnode1.lan ssh-ed25519 {KEY1}\n"
    assert known(text) == [ONE]


def test_another_port_has_its_own_name_and_falls_back_to_the_bare_one() -> None:
    text = f"[node1.lan]:2222 ssh-ed25519 {KEY1}\nnode1.lan ssh-ed25519 {KEY2}\n"
    assert known(text, port=2222) == [ONE]
    assert known(text, port=2200) == [TWO]
    assert known(text) == [TWO]


def test_an_alias_counts_alone_and_without_a_port() -> None:
    text = f"lab1 ssh-ed25519 {KEY1}\nnode1.lan ssh-ed25519 {KEY2}\n"
    assert known(text, port=2222, alias="lab1") == [ONE]
    assert known(text, alias="lab2") == []


def test_revoked_keys_and_authorities_are_told_apart_from_keys() -> None:
    found = lookup(
        parse(f"@revoked * ssh-ed25519 {KEY1}\n@cert-authority *.lan ssh-ed25519 {KEY2}\n"),
        "node1.lan",
        22,
    )
    assert found.keys == ()
    assert found.is_revoked(ONE)
    assert not found.is_revoked(TWO)
    assert len(found.authorities) == 1


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(("port", "alias"), [(22, ""), (2222, ""), (2222, "lab1")])
def test_a_learnt_key_is_found_again(tmp_path: Path, hashed: bool, port: int, alias: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("# no line feed at the end")
    append_line(path, line_for("Node1.lan", port, "ssh-ed25519", ONE, alias=alias, hashed=hashed))
    assert known(path.read_text(), port=port, alias=alias) == [ONE]
    assert known(path.read_text(), "node2.lan", port) == []
    assert ("|1|" in path.read_text()) is hashed
    assert path.read_text().startswith("# no line feed at the end\n")


def test_a_file_that_is_not_there_has_no_keys(tmp_path: Path) -> None:
    assert read([tmp_path / "none"]) == ()


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs OpenSSH's ssh-keygen to compare")
def test_openssh_hashes_and_fingerprints_the_same(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(key)], check=True)
    kind, blob = key.with_suffix(".pub").read_text().split()[:2]
    path.write_text(f"node1.lan,[node1.lan]:2222 {kind} {blob}\n")
    subprocess.run(["ssh-keygen", "-qHf", str(path)], check=True, capture_output=True)
    assert "node1" not in path.read_text()
    raw = base64.b64decode(blob)
    assert known(path.read_text()) == [raw]
    assert known(path.read_text(), port=2222) == [raw]
    shown = subprocess.check_output(["ssh-keygen", "-lf", str(key)], text=True)
    assert fingerprint(raw) == shown.split()[1]
    path.write_text(line_for("node1.lan", 2222, kind, raw, hashed=True))
    found = subprocess.run(["ssh-keygen", "-F", "[node1.lan]:2222", "-f", str(path)], check=False)
    assert found.returncode == 0


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    assert read([path]) == ()
    append_line(path, line_for("a", 22, "ssh-ed25519", ONE))
    assert [entry.blob for entry in lookup(read([path]), "a", 22).keys] == [ONE]
    append_line(path, line_for("a", 22, "ssh-ed25519", TWO))
    assert [entry.blob for entry in lookup(read([path]), "a", 22).keys] == [ONE, TWO]
    path.unlink()
    assert read([path]) == ()
