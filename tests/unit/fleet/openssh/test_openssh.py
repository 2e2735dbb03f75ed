"""A node that ``ssh node1`` reaches is reached by us too: the OpenSSH configuration, honoured."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from moorage.errors import Refused
from moorage.fleet.inventory import Target, parse_hosts
from moorage.fleet.openssh import files, program
from moorage.fleet.ssh.routes import LabHosts, Route, require_each_once, routes
from moorage.settings import NodesSettings

ROOT = files.home()  # OpenSSH takes the home from the password database, whatever $HOME says


@pytest.fixture(params=["ssh", "ours"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for configurations, which OpenSSH's ssh reads, and our own reading."""
    if request.param == "ours":
        monkeypatch.setattr(program, "find", lambda: None)
    elif shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's ssh")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose files our own reading finds by itself."""
    monkeypatch.setattr(program, "find", lambda: None)
    monkeypatch.setattr(files, "home", lambda: tmp_path)
    monkeypatch.setattr(files, "SYSTEM", tmp_path / "etc/ssh_config")
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def route(home: Path, text: str, host: str = "node1", **settings: object) -> Route:
    (home / "config").write_text(text)
    nodes = NodesSettings(ssh_config=str(home / "config"), **settings)  # type: ignore[arg-type]
    return routes(parse_hosts(host), nodes)[0]


def test_without_a_configuration_the_name_is_the_host(home: Path) -> None:
    found = routes(parse_hosts("node1"), NodesSettings())[0]
    assert (found.hostname, found.port, found.user_is_guess) == ("node1", 22, True)
    assert ROOT / ".ssh/known_hosts" in found.known_hosts
    assert found.direct


def test_the_users_own_file_is_read(own_home: Path) -> None:
    (own_home / ".ssh/config").write_text("Host node1\n  HostName 10.0.0.1\n  User admin\n")
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
    assert found.identities == (ROOT / ".ssh/node_key",)
    assert found.identities_given
    assert found.identities_only
    assert found.agent == "none"
    assert found.alias == "rack7"
    assert found.known_hosts == (ROOT / "kh1", ROOT / "kh2")
    assert found.hash_known_hosts
    assert found.connect_timeout == 3


def test_what_the_user_types_wins_over_settings_and_settings_over_the_file(home: Path) -> None:
    text = "Host node1\n  User file\n  Port 2222\n"
    assert route(home, text).user == "file"
    assert route(home, text, user="settings").user == "settings"
    typed = route(home, text, "typed@node1:22", user="settings")
    assert (typed.user, typed.port) == ("typed", 22)


def test_known_hosts_of_the_settings_stands_alone(home: Path) -> None:
    found = route(home, "UserKnownHostsFile /elsewhere\n", known_hosts="/root/mine")
    assert found.known_hosts == (Path("/root/mine"),)


def test_a_home_folder_of_nobody_is_refused(home: Path) -> None:
    for text in ("UserKnownHostsFile ~no-such-user/x\n", "IdentityFile ~no-such-user/x\n"):
        with pytest.raises(Refused) as refusal:
            route(home, text)
        assert refusal.value.code in ("no-home", "bad-ssh-config")  # the latter by ssh itself


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
    [
        (b"nonsense\n", "argument after keyword|nothing follows"),
        (b"nonsense here\n", "ad configuration option|not a keyword"),
        (b"\xff\xfe x\n", "ad configuration option|UTF-8"),
        (b"Host a\nPort many\n", "ad (port|number)|not 'many'"),
        (b'Host a\nUser "b\n', "quote"),
        (b"Host a\nMatch hots a\nUser b\n", "hots"),
        (b"Match all host a\n", "all"),
        (None, "No such file"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused(
    home: Path, content: bytes | None, cause: str
) -> None:
    path = home / "config"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused) as refusal:
        routes(parse_hosts("node1"), NodesSettings(ssh_config=str(path)))
    assert re.search(cause, refusal.value.cause)
    assert refusal.value.path == str(path)
    if content and content.count(b"\n") > 1:
        assert "line 2" in refusal.value.message + refusal.value.cause


def test_includes_are_followed_and_the_block_goes_on_after_them(home: Path) -> None:
    (home / "conf.d").mkdir()
    (home / "conf.d/a.conf").write_text("Host node1\n  HostName 10.0.0.1\n")
    (home / "conf.d/b.conf").write_text("Host node2\n  HostName 10.0.0.2\n")
    text = (
        f"Include {home}/conf.d/*.conf ~/none\n"
        f"Host node1\n  Include {home}/conf.d/b.conf\n  Port 2222\n"
    )
    assert (route(home, text).hostname, route(home, text).port) == ("10.0.0.1", 2222)
    assert (route(home, text, "node2").hostname, route(home, text, "node2").port) == (
        "10.0.0.2",
        22,
    )


def test_a_relative_include_is_beside_the_users_file_and_the_systems_beside_its_own(
    own_home: Path,
) -> None:
    (own_home / "etc/d").mkdir(parents=True)
    (own_home / "etc/ssh_config").write_text("Include d/*\n")
    (own_home / "etc/d/one").write_text("User system\n")
    (own_home / ".ssh/config").write_text("Include mine ~/.ssh/too\n")
    (own_home / ".ssh/mine").write_text("HostName 10.0.0.1\n")
    (own_home / ".ssh/too").write_text("Port 2222\n")
    found = routes(parse_hosts("node1"), NodesSettings())[0]
    assert (found.hostname, found.port, found.user) == ("10.0.0.1", 2222, "system")


def test_files_that_include_each_other_are_refused(home: Path) -> None:
    (home / "config").write_text(f"Include {home}/config\n")
    with pytest.raises(Refused, match="cannot be used"):
        routes(parse_hosts("node1"), NodesSettings(ssh_config=str(home / "config")))


def test_a_file_that_others_may_write_is_not_read(home: Path) -> None:
    (home / "shared").write_text("Host node1\n  HostName 10.0.0.66\n")
    (home / "shared").chmod(0o666)
    with pytest.raises(Refused, match="cannot be used") as refusal:
        route(home, f"Include {home}/shared\n")
    assert "shared" in refusal.value.cause + refusal.value.message


# What met a condition here once, and was another machine, changed as root: E1 and its kin.
ELSEWHERE = [
    ("Match originalhost node1 localnetwork 198.51.100.0/24", False),
    ("Match Host db*", False),
    ("Match HOST db*", False),
    ("Match OriginalHost db*", False),
    ("Match !Host node1", False),
    ("Match LocalUser nobody", False),
    ("Match localuser nobody,!root", False),
    ("Match User ops", False),
    ("Match Exec false", False),
    ("Match !exec true", False),
    ("Match tagged x", False),
    ("Match host node1 Exec false", False),
    ("Match Canonical", False),
    ("Match !all", False),
    ("Host NODE1", False),
    ("Host n[o]de1", False),
    ("Host * !node1", False),
    ("Match All", True),
    ("MATCH all", True),
    ('host="node*"', True),
    ("hOsT = 'node1'", True),
    ("Match host=node1", True),
    ("Match host NODE1,db*", True),
    ("Match Final all", False),  # the name is chosen by then
    ("Match !Final", True),
    ("Match Exec true", True),
    ("Match exec=true", True),
    ("match originalHost node? # the nodes", True),
]


@pytest.mark.skipif(not shutil.which("ssh"), reason="needs OpenSSH's ssh")
@pytest.mark.parametrize(("head", "met"), ELSEWHERE)
def test_a_condition_holds_for_whom_openssh_says(tmp_path: Path, head: str, met: bool) -> None:
    text = f"{head}\n  HostName 10.6.6.6\n"
    try:
        found = route(tmp_path, text).hostname
    except Refused as refusal:
        # An older ssh than the condition: refused too, and by its own words.
        assert "tagged" in head or "localnetwork" in head
        assert "line 1" in refusal.cause
    else:
        assert found == ("10.6.6.6" if met else "node1")


@pytest.mark.parametrize(("head", "met"), ELSEWHERE)
def test_our_own_reading_says_the_same_or_nothing(own_home: Path, head: str, met: bool) -> None:
    text = f"{head}\n  HostName 10.6.6.6\n"
    if re.search("exec|localnetwork", head, re.IGNORECASE):
        with pytest.raises(Refused) as refusal:
            route(own_home, text)
        assert "config, line 1" in refusal.value.message
        assert "openssh-client" in refusal.value.cure
    else:
        assert route(own_home, text).hostname == ("10.6.6.6" if met else "node1")


@pytest.mark.parametrize(
    "text",
    [
        "Match host other exec true\n  HostName 10.6.6.6\n",
        "Host other\n  CanonicalizeHostname yes\n",
        "Match originalhost other localnetwork 10.0.0.0/8\n  HostName 10.6.6.6\n",
        "IgnoreUnknown UseKey*\nUseKeychain yes\n",
    ],
)
def test_what_cannot_be_decided_here_is_no_matter_if_it_does_not_count(
    own_home: Path, text: str
) -> None:
    assert route(own_home, text).hostname == "node1"


@pytest.mark.parametrize(
    "text",
    [
        "CanonicalizeHostname yes\n",
        "Match version x\nUser a\n",
        "Include ${HOME}/x\n",
    ],
)
def test_what_openssh_alone_can_decide_is_refused_with_its_place(own_home: Path, text: str) -> None:
    with pytest.raises(Refused) as refusal:
        route(own_home, text)
    assert "config, line 1" in refusal.value.message


def test_what_releases_of_openssh_read_otherwise_is_refused(own_home: Path) -> None:
    # 9.2p1 goes there directly, 10.0p2 by the command.
    with pytest.raises(Refused) as refusal:
        route(own_home, "ProxyJump none\nProxyCommand proxy %h\n")
    assert "config, line 2" in refusal.value.message
    assert route(own_home, "ProxyJump none\nProxyCommand none\n").direct


def test_tokens_and_homes_are_expanded(home: Path) -> None:
    found = route(
        home,
        "HostName %h.lan\nPort 2200\nIdentityFile ~/.ssh/%n_%h\nCertificateFile %d/c_%r\n"
        "User ops\nProxyCommand proxy %n %h:%p '%%' ~/x $HOME\nUserKnownHostsFile ~/kh/%k\n",
    )
    assert found.identities == (ROOT / ".ssh/node1_node1.lan",)
    assert found.certificates == (ROOT / "c_ops",)
    assert found.proxy_command == "proxy node1 node1.lan:2200 '%' ~/x $HOME"
    assert found.known_hosts[0] == ROOT / "kh/node1"


def test_a_way_that_cannot_be_honoured_is_refused(home: Path) -> None:
    for text in ("ProxyUseFdpass yes\nProxyCommand x\n", "IdentityFile ~/%z\n"):
        with pytest.raises(Refused) as refusal:
            route(home, text)
        assert "node1" in refusal.value.cause + refusal.value.cure


def test_jump_hosts_with_addresses_and_schemes(home: Path) -> None:
    found = route(home, "ProxyJump ops@10.0.0.1:2200,ssh://x@jump:22,[fd00::1]:22\n")
    assert [(jump.hostname, jump.port, jump.user) for jump in found.jumps][:2] == [
        ("10.0.0.1", 2200, "ops"),
        ("jump", 22, "x"),
    ]
    assert found.jumps[2].hostname == "fd00::1"


def test_what_an_inventory_says_beside_goes_before_the_file(home: Path) -> None:
    (home / "config").write_text("Host node1\n  Port 2222\n  ProxyJump wrong\n")
    target = Target("node1", "node1", "", 0, ("ProxyCommand=nc %h %p", "Port=2201"))
    found = routes([target], NodesSettings(ssh_config=str(home / "config")))[0]
    assert (found.port, found.proxy_command, found.jumps) == (2201, "nc node1 2201", ())


def test_an_inventory_that_is_a_configuration_is_the_one_that_counts(home: Path) -> None:
    (home / "vagrant").write_text("Host node1\n  HostName 127.0.0.1\n  Port 2200\n")
    target = Target("node1", "node1", ssh_config=str(home / "vagrant"))
    found = routes([target], NodesSettings())[0]
    assert (found.hostname, found.port) == ("127.0.0.1", 2200)


def test_thousands_of_hosts_with_a_block_each_take_a_moment(own_home: Path) -> None:
    path = own_home / "config"
    path.write_text("".join(f"Host n{one}\n  HostName 10.0.0.{one}\n" for one in range(2000)))
    began = time.monotonic()
    found = routes(parse_hosts(",".join(f"n{one}" for one in range(2000))),
                   NodesSettings(ssh_config=str(path)))  # fmt: skip
    assert found[-1].hostname == "10.0.0.1999"
    # Each looked up in all 2,000 blocks took 110 seconds.
    assert time.monotonic() - began < 20


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[program.Query]:
    """Every question that ssh itself is asked."""
    if shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's ssh")
    questions: list[program.Query] = []
    ask = program.Program.options

    def options(self: program.Program, query: program.Query) -> dict[str, tuple[str, ...]]:
        questions.append(query)
        return ask(self, query)

    monkeypatch.setattr(program.Program, "options", options)
    return questions


def test_what_ssh_answered_is_kept_until_a_file_changes(
    tmp_path: Path, asked: list[program.Query]
) -> None:
    included, state = tmp_path / "more", tmp_path / "state"
    (tmp_path / "config").write_text(f"Include {tmp_path}/mo*\n")
    included.write_text("HostName 10.0.0.1\nUserKnownHostsFile ~/a\n")
    nodes = NodesSettings(ssh_config=str(tmp_path / "config"))

    def found() -> Route:
        return routes(parse_hosts("node1"), nodes, None, state)[0]

    first = found()
    assert found() == first
    assert len(asked) == 1
    included.write_text("HostName 10.0.0.2\n")
    assert found().hostname == "10.0.0.2"
    (tmp_path / "more2").write_text("Port 2222\n")
    assert found().port == 2222
    assert len(asked) == 3
    (kept,) = state.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_text("{")
    assert found().port == 2222
    assert len(asked) == 4


@pytest.mark.parametrize(
    "text",
    [
        "Match exec true\nUser x\n",
        "CanonicalizeHostname no\n",
        "HostKeyAlias a\nIdentityAgent ${SOCK}\n",
        "Host other\n  UserKnownHostsFile ${HOME}/x\n",
    ],
)
def test_what_hangs_on_more_than_files_is_asked_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[program.Query], text: str
) -> None:
    monkeypatch.setenv("SOCK", "/run/agent")
    (tmp_path / "config").write_text(text)
    nodes = NodesSettings(ssh_config=str(tmp_path / "config"))
    for _ in range(2):
        routes(parse_hosts("node1"), nodes, None, tmp_path / "state")
    assert len(asked) == 2


def test_an_ssh_that_is_not_openssh_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stand-in for dropbear's client, which has no -G.
    (tmp_path / "ssh").write_text("#!/bin/sh\necho 'Dropbear client v2022.83' >&2; exit 1\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.find() is None
    assert route(tmp_path, "Host node1\n  Port 2222\n").port == 2222


def test_a_program_that_ends_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[program.Query]
) -> None:
    monkeypatch.setattr(program, "_SECONDS", 1)
    with pytest.raises(Refused) as refusal:
        route(tmp_path, 'Match exec "exec sleep 60"\n  User x\n')
    assert "Match exec" in refusal.value.cause
