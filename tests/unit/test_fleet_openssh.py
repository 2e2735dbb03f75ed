"""A node that ``ssh node1`` reaches is reached by us too: the OpenSSH configuration, honoured."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from paramiko import SSHConfig

from moorage.errors import Refused
from moorage.fleet.inventory import parse_hosts
from moorage.fleet.openssh import LabHosts, Route, expand_includes, require_each_once, routes
from moorage.fleet.openssh_blocks import Blocks
from moorage.settings import NodesSettings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def route(home: Path, text: str, host: str = "node1", **settings: object) -> Route:
    (home / "config").write_text(text)
    nodes = NodesSettings(ssh_config=str(home / "config"), **settings)  # type: ignore[arg-type]
    return routes(parse_hosts(host), nodes)[0]


def test_without_a_configuration_the_name_is_the_host(home: Path) -> None:
    found = routes(parse_hosts("node1"), NodesSettings())[0]
    assert (found.hostname, found.port, found.user_is_guess) == ("node1", 22, True)
    assert home / ".ssh/known_hosts" in found.known_hosts
    assert found.direct


def test_the_users_own_file_is_read(home: Path) -> None:
    (home / ".ssh/config").write_text("Host node1\n  HostName 10.0.0.1\n  User admin\n")
    found = routes(parse_hosts("node1"), NodesSettings())[0]
    assert (found.hostname, found.user, found.user_is_guess) == ("10.0.0.1", "admin", False)


def test_options_are_honoured(home: Path) -> None:
    found = route(
        home,
        """
        Host node1
          HostName 10.0.0.1
          Port 2222
          User admin
          IdentityFile ~/.ssh/node_key
          IdentitiesOnly yes
          IdentityAgent none
          HostKeyAlias rack7
          UserKnownHostsFile ~/kh1 "~/kh2"
          GlobalKnownHostsFile none
          HashKnownHosts yes
          ConnectTimeout 3
        """,
    )
    assert (found.hostname, found.port, found.user) == ("10.0.0.1", 2222, "admin")
    assert found.identities == (home / ".ssh/node_key",)
    assert found.identities_given
    assert found.identities_only
    assert found.agent == "none"
    assert found.alias == "rack7"
    assert found.known_hosts == (home / "kh1", home / "kh2")
    assert found.hash_known_hosts
    assert found.connect_timeout == 3


def test_what_the_user_types_wins_over_settings_and_settings_over_the_file(home: Path) -> None:
    text = "Host node1\n  User file\n  Port 2222\n"
    assert route(home, text).user == "file"
    assert route(home, text, user="settings").user == "settings"
    typed = route(home, text, "typed@node1:22", user="settings")
    assert (typed.user, typed.port) == ("typed", 22)


def test_known_hosts_of_the_settings_stands_alone(home: Path) -> None:
    found = route(home, "UserKnownHostsFile /elsewhere\n", known_hosts="~/mine")
    assert found.known_hosts == (home / "mine",)


def test_jump_hosts_are_routes_of_their_own(home: Path) -> None:
    found = route(
        home,
        """
        Host bastion
          HostName 198.51.100.1
          User jumper
        Host inner
          ProxyJump bastion
        Host node1
          ProxyJump inner
        """,
    )
    assert (found.jumps[0].hostname, found.jumps[0].user) == ("198.51.100.1", "jumper")
    assert [jump.name for jump in found.jumps] == ["bastion", "inner"]
    assert not found.direct


def test_a_jump_for_all_hosts_does_not_hold_for_the_jump_itself(home: Path) -> None:
    found = route(home, "Host *\n  ProxyJump admin@bastion:2222\n")
    assert [(jump.name, jump.port, jump.jumps) for jump in found.jumps] == [
        ("admin@bastion:2222", 2222, ())
    ]


def test_jumps_in_a_circle_are_refused(home: Path) -> None:
    with pytest.raises(Refused, match="cannot be used") as refusal:
        route(home, "Host node1\n ProxyJump b\nHost b\n ProxyJump c\nHost c\n ProxyJump b\n")
    assert "circles" in refusal.value.cause


def test_the_users_name_of_the_settings_is_not_the_jump_hosts(home: Path) -> None:
    found = route(home, "Host node1\n ProxyJump bastion\n", user="admin")
    assert found.user == "admin"
    assert found.jumps[0].user_is_guess


def test_proxy_command_none_is_no_proxy(home: Path) -> None:
    text = "Host node1\n ProxyCommand none\nHost *\n ProxyCommand nc %h %p\n"
    assert route(home, text).direct
    other = route(home, text, "node2")
    assert other.proxy_command == "nc node2 22"
    assert not other.direct


def test_two_names_of_one_machine_are_refused(home: Path) -> None:
    (home / "config").write_text("Host a b\n  HostName 10.0.0.1\n")
    found = routes(parse_hosts("a,b"), NodesSettings(ssh_config=str(home / "config")))
    with pytest.raises(Refused) as refusal:
        require_each_once(found)
    assert refusal.value.code == "host-twice"
    assert "a and b" in refusal.value.message


def test_one_address_behind_two_jump_hosts_is_two_machines(home: Path) -> None:
    (home / "config").write_text(
        "Host a b\n  HostName 10.0.0.1\nHost a\n  ProxyJump j1\nHost b\n  ProxyJump j2\n"
    )
    require_each_once(routes(parse_hosts("a,b"), NodesSettings(ssh_config=str(home / "config"))))


def test_lab_names_have_a_configuration_of_their_own(home: Path) -> None:
    (home / "lab").write_text("Host lab1\n  HostName 172.17.0.9\n  User root\n")
    (home / "config").write_text("Host *\n  User other\n  ProxyJump bastion\n")
    lab = LabHosts(frozenset({"lab1"}), home / "lab")
    settings = NodesSettings(ssh_config=str(home / "config"), user="admin")
    inside, outside = routes(parse_hosts("lab1,node1"), settings, lab)
    assert (inside.user, inside.hostname, inside.direct) == ("root", "172.17.0.9", True)
    assert (outside.user, outside.direct) == ("admin", False)


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"nonsense\n", "nparsable"), (b"\xff\xfe\n", "codec"), (None, "No such file")],
)
def test_a_configuration_that_cannot_be_read_is_refused(
    home: Path, content: bytes | None, cause: str
) -> None:
    path = home / "config"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused) as refusal:
        routes(parse_hosts("node1"), NodesSettings(ssh_config=str(path)))
    assert cause in refusal.value.cause
    assert refusal.value.path == str(path)


def test_includes_are_followed_and_the_block_goes_on_after_them(home: Path) -> None:
    (home / ".ssh/conf.d").mkdir()
    (home / ".ssh/conf.d/a.conf").write_text("Host node1\n  HostName 10.0.0.1\n")
    (home / ".ssh/conf.d/b.conf").write_text("Host node2\n  HostName 10.0.0.2\n")
    text = "Include conf.d/*.conf ~/none\nHost node1\n  Include conf.d/b.conf\n  Port 2222\n"
    assert (route(home, text).hostname, route(home, text).port) == ("10.0.0.1", 2222)
    assert (route(home, text, "node2").hostname, route(home, text, "node2").port) == (
        "10.0.0.2",
        22,
    )


def test_files_that_include_each_other_are_refused(home: Path) -> None:
    path = home / ".ssh/loop"
    path.write_text("Include loop\n")
    with pytest.raises(Refused, match="cannot be used"):
        expand_includes(path.read_text(), path, Path.read_text)


CONFIG = """
Include included
Host node2
  HostName node2.example.net
Host node*
  HostName %h.example.net
  Port 2222
Host node1
  User late
  IdentityFile ~/.ssh/one
Match host node2.example.net
  User matched
Host *
  User fallback
  IdentityFile ~/.ssh/two
"""


@pytest.mark.skipif(not shutil.which("ssh"), reason="needs OpenSSH's ssh to compare")
@pytest.mark.parametrize("name", ["node1", "node2", "other"])
def test_openssh_reads_the_same(home: Path, name: str) -> None:
    # ssh finds the home in the password database, so the names are made absolute.
    config = CONFIG.replace("~", str(home)).replace("included", str(home / "included"))
    (home / "included").write_text("Host node1\n  User included\n")
    found = route(home, config, name)
    said = subprocess.run(
        ["ssh", "-G", "-F", str(home / "config"), name], capture_output=True, text=True, check=True
    )
    options: dict[str, list[str]] = {}
    for line in said.stdout.splitlines():
        key, _, value = line.partition(" ")
        options.setdefault(key, []).append(value)
    assert found.hostname == options["hostname"][0]
    assert str(found.port) == options["port"][0]
    assert found.user == options["user"][0]
    assert [str(path) for path in found.identities] == options["identityfile"]


def test_only_the_blocks_that_can_be_about_a_host_are_looked_at_and_none_is_missed() -> None:
    text = (
        "User first\nHost a b\n  Port 1\nHost *.lan !x.lan\n  Port 2\n  IdentityFile one\n"
        'Host "a"\n  Port 3\n  HostName real-%h\nHOST = c\n  Port 4\nHost n[12]\n  Port 5\n'
        "Match host a\n  ForwardAgent yes\nHost *\n  Port 6\n  IdentityFile two\nHost b\n  User b\n"
    )
    whole, blocks = SSHConfig.from_text(text), Blocks(text)
    for host in ("a", "b", "c", "d", "x.lan", "y.lan", "n1", "n[12]", "A"):
        assert dict(blocks.lookup(host)) == dict(whole.lookup(host)), host


def test_a_name_that_is_looked_up_anew_sees_every_block() -> None:
    text = (
        "CanonicalizeHostname yes\nCanonicalDomains invalid\n"
        "Host a\n  Port 1\nHost a.invalid\n  Port 2\n"
    )
    assert dict(Blocks(text).lookup("a")) == dict(SSHConfig.from_text(text).lookup("a"))


def test_thousands_of_hosts_with_a_block_each_take_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("".join(f"Host n{one}\n  HostName 10.0.0.{one}\n" for one in range(2000)))
    began = time.monotonic()
    found = routes(parse_hosts(",".join(f"n{one}" for one in range(2000))),
                   NodesSettings(ssh_config=str(path)))  # fmt: skip
    assert found[-1].hostname == "10.0.0.1999"
    # Each looked up in all 2,000 blocks took 110 seconds.
    assert time.monotonic() - began < 20
