"""Ansible inventories as they are in the field: what decides the way to a host is used, or refused.

Where ``ansible-inventory`` is on PATH it is the judge of our own reading: both read the same files.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage import fleet
from moorage.errors import Refused
from moorage.fleet.inventory import Target, ansible, ansible_program, listing, targets
from moorage.fleet.inventory.selection import Selection
from moorage.fleet.openssh import files, program
from moorage.settings import NodesSettings, Settings

BASTION = """\
[bastion]
bastion ansible_host=198.51.100.9 ansible_user=ops

[web]
web1 ansible_host=10.0.0.1
web2 ansible_host=10.0.0.2

[web:vars]
ansible_ssh_common_args='-o ProxyCommand="ssh -W %h:%p ops@198.51.100.9" -o ControlMaster=auto'
ansible_ssh_private_key_file=~/.ssh/web
ansible_ssh_extra_args=-o StrictHostKeyChecking=no
"""


@pytest.fixture(params=["ssh", "ours"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "ours":
        monkeypatch.setattr(program, "find", lambda: None)
    elif shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's ssh")
    monkeypatch.setattr(ansible_program, "ask", lambda _: None)
    return str(request.param)


def here(tmp_path: Path) -> Settings:
    (tmp_path / "ssh_config").touch()
    return Settings(nodes=NodesSettings(ssh_config=str(tmp_path / "ssh_config")))


class Run:
    """What one command makes of an inventory."""

    def __init__(self, tmp_path: Path, name: str, text: str, **words: str) -> None:
        (tmp_path / name).write_text(text)
        self.notes: list[str] = []
        selection = Selection(words.pop("hosts", None), str(tmp_path / name), **words)
        self.hosts = fleet.choose_hosts(here(tmp_path), selection=selection, tell=self.notes.append)
        self.names = [host.name for host in self.hosts]


def refused(tmp_path: Path, name: str, text: str, **words: str) -> Refused:
    with pytest.raises(Refused) as refusal:
        Run(tmp_path, name, text, **words)
    assert refusal.value.cause
    assert refusal.value.cure
    return refusal.value


def test_what_the_inventory_gives_ssh_is_given_to_it(tmp_path: Path, reader: str) -> None:
    from moorage.fleet.ssh.routes import routes

    run = Run(tmp_path, "hosts", BASTION)
    first, second = routes(run.hosts, here(tmp_path).nodes)
    assert first.proxy_command == "ssh -W 10.0.0.1:22 ops@198.51.100.9"
    assert second.proxy_command == "ssh -W 10.0.0.2:22 ops@198.51.100.9"
    assert first.identities == (files.home() / ".ssh/web",)
    assert not first.direct


def test_a_jump_host_is_left_out_unless_it_is_named(tmp_path: Path, reader: str) -> None:
    run = Run(tmp_path, "hosts", BASTION)
    assert run.names == ["web1", "web2"]
    (said,) = run.notes
    assert "bastion is left out: it is the way to web[1-2]" in said
    assert "--hosts=bastion" in said
    # What is said works as typed, and so do other words for it alone.
    for words in ({"hosts": "bastion"}, {"limit": "bastion,web1"}, {"limit": "@bastion,@web"}):
        run = Run(tmp_path, "hosts", BASTION, **words)
        assert "bastion" in run.names
        assert run.notes == []
    assert Run(tmp_path, "hosts", BASTION, hosts="bastion").hosts[0].host == "198.51.100.9"
    # Alone it is no way to anybody.
    assert Run(tmp_path, "hosts", BASTION, limit="b*").names == ["bastion"]
    # A word for many is none for it.
    assert Run(tmp_path, "hosts", BASTION, limit="*").names == ["web1", "web2"]


@pytest.mark.parametrize(
    "args",
    [
        "-J ops@198.51.100.9",
        "-oProxyJump=ops@198.51.100.9:22",
        "-o ProxyCommand='ssh -q -p 22 -o User=ops -W [%h]:%p 198.51.100.9'",
        "-o 'ProxyCommand ssh ops@198.51.100.9 -W %h:%p'",
        "-o 'ProxyCommand exec /usr/bin/ssh -W%h:%p -- ops@198.51.100.9'",
    ],
)
def test_each_way_through_a_jump_host_is_seen(tmp_path: Path, reader: str, args: str) -> None:
    text = f'[all]\nbastion ansible_host=198.51.100.9\nweb ansible_ssh_common_args="{args}"\n'
    run = Run(tmp_path, "hosts", text)
    assert run.names == ["web"]


def test_the_users_own_configuration_leads_through_it_too(tmp_path: Path, reader: str) -> None:
    (tmp_path / "ssh_config").write_text("Host web\n  ProxyJump bastion\n")
    text = "[all]\nbastion ansible_user=ops\nweb ansible_user=root\n"
    assert Run(tmp_path, "hosts", text).names == ["web"]


def test_a_host_behind_two_jump_hosts_is_two(tmp_path: Path, reader: str) -> None:
    text = (
        "[all]\n"
        "a ansible_host=10.0.0.5 ansible_ssh_common_args='-J j1'\n"
        "b ansible_host=10.0.0.5 ansible_ssh_common_args='-J j2'\n"
    )
    assert Run(tmp_path, "hosts", text).names == ["a", "b"]


def test_a_way_is_kept_for_a_run_that_is_gone_on_with(tmp_path: Path, reader: str) -> None:
    from moorage.fleet.report import logbook

    hosts = Run(tmp_path, "hosts", BASTION).hosts
    logbook.Logbook.begin(tmp_path / "rollouts", "trust a.io", hosts)
    assert logbook.newest(tmp_path / "rollouts", "trust a.io").hosts == hosts


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ("ansible_connection=docker", "only by SSH"),
        ("ansible_connection=local", "only by SSH"),
        ("ansible_connection=winrm ansible_port=5986", "only by SSH"),
        ("ansible_host='{{ address }}'", "template"),
        ("ansible_ssh_common_args='-J {{ jump }}'", "template"),
        ("ansible_port=ssh", "port"),
        ("ansible_ssh_common_args='-W %h:%p'", "another destination"),
        ("ansible_ssh_extra_args='bastion'", "another destination"),
        ("ansible_ssh_extra_args='-Q cipher'", "-Q"),
        ("ansible_ssh_extra_args='-o'", "nothing follows -o"),
        ("ansible_ssh_executable=/opt/tsh", "/opt/tsh"),
    ],
)
def test_a_way_that_cannot_be_used_is_refused_by_name_before_any_host(
    tmp_path: Path, reader: str, variables: str, words: str
) -> None:
    text = f"[all]\nweb1\nodd {variables}\n"
    problem = refused(tmp_path, "hosts", text)
    assert problem.code == "bad-inventory"
    assert "odd cannot be reached" in problem.message
    assert "odd: line 3: " in problem.cause
    assert words in problem.cause
    # The cure works as typed.
    assert "--exclude=odd" in problem.cure
    assert Run(tmp_path, "hosts", text, exclude="odd").names == ["web1"]
    assert Run(tmp_path, "hosts", text, limit="web1").names == ["web1"]


def test_a_bad_option_of_ssh_is_refused_with_the_host(tmp_path: Path, reader: str) -> None:
    problem = refused(tmp_path, "hosts", "[all]\na ansible_ssh_extra_args='-o Nonsense=1'\n")
    assert "onsense" in problem.cause


TAGGED = """\
all:
  vars:
    ansible_become_password: !vault |
      $ANSIBLE_VAULT;1.1;AES256
      61626364
    motd: !unsafe "{{ not a template }}"
    list: !unsafe [a, b]
    ansible_host_key_checking: false
    ansible_become: true
  remarks: unknown to Ansible, which passes it over
  children:
    web:
      environment_name: prod
      hosts:
        web1: {ansible_host: !unsafe 10.0.0.1, ansible_python_interpreter: /usr/bin/python3}
        web[2:3].lan:
    empty:
    single: {hosts: db1}
odd: just a text
"""


def test_what_is_not_ours_is_passed_over(tmp_path: Path, reader: str) -> None:
    run = Run(tmp_path, "hosts.yml", TAGGED)
    assert run.names == ["web1", "web2.lan", "web3.lan", "db1"]
    assert run.hosts[0].host == "10.0.0.1"


def test_an_encrypted_address_is_refused_with_the_host(tmp_path: Path, reader: str) -> None:
    text = TAGGED.replace("!unsafe 10.0.0.1", '!vault "$ANSIBLE_VAULT;1.1;AES256"')
    assert "web1: ansible_host is encrypted" in refused(tmp_path, "hosts.yml", text).cause
    assert Run(tmp_path, "hosts.yml", text, exclude="web1").names[0] == "web2.lan"


def test_a_tag_that_ansible_does_not_know_is_refused_with_its_line(
    tmp_path: Path, reader: str
) -> None:
    problem = refused(tmp_path, "hosts.yml", "all:\n  hosts:\n    a: {x: !secret y}\n")
    assert "line 3" in problem.message
    problem = refused(tmp_path, "hosts.yml", "plugin: amazon.aws.aws_ec2\nregions: [x]\n")
    assert "ansible-core" in problem.cure


def test_variables_beside_the_file_are_not_overlooked(tmp_path: Path, reader: str) -> None:
    (tmp_path / "group_vars/web").mkdir(parents=True)
    (tmp_path / "group_vars/web/main.yml").write_text("ansible_become: true\nhttp_port: 80\n")
    assert Run(tmp_path, "hosts", BASTION).names == ["web1", "web2"]
    (tmp_path / "group_vars/web/way.yml").write_text("ansible_port: 2222\n")
    problem = refused(tmp_path, "hosts", BASTION)
    assert "way.yml has ansible_port" in problem.cause
    assert "ansible-core" in problem.cure


# -- ansible-inventory itself ---------------------------------------------------------------------


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """A stand-in for ansible-inventory: says ``words``, a shell script."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    path = tmp_path / "bin/ansible-inventory"
    path.write_text(f"#!/bin/sh\n{words}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


# As ansible-core 2.19.14 answers.
ANSWER = {
    "_meta": {
        "hostvars": {
            "bastion": {"ansible_host": "198.51.100.9", "x": {"__ansible_vault": "$ANSIBLE"}},
            "web1": {
                "ansible_port": 2222,
                "ansible_host": {"__ansible_unsafe": "10.0.0.1"},
                "ansible_ssh_common_args": "-J ops@198.51.100.9",
            },
            "web2": {"ansible_host": {"__ansible_vault": "$ANSIBLE_VAULT"}},
        },
        "profile": "inventory_legacy",
    },
    "all": {"children": ["ungrouped", "web", "bastion"]},
    "bastion": {"hosts": ["bastion"]},
    "web": {"hosts": ["web2", "web1"]},
}


def test_what_ansible_says_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answer").write_text(json.dumps(ANSWER))
    stand_in(tmp_path, monkeypatch, f"echo warning >&2; cat {tmp_path}/answer")
    assert "web2: ansible_host is encrypted" in refused(tmp_path, "hosts", "[web]\nother\n").cause
    run = Run(tmp_path, "hosts", "[web]\nother\n", exclude="web2")
    assert run.names == ["web1"]
    assert (run.hosts[0].host, run.hosts[0].port) == ("10.0.0.1", 2222)
    assert run.hosts[0].ssh_args == ("ProxyJump=ops@198.51.100.9",)
    # Other kinds of files are none of its business.
    assert Run(tmp_path, "list", "node1\nnode2\n").names == ["node1", "node2"]


@pytest.mark.parametrize(
    "words", ["echo 'Traceback: no module' >&2; exit 1", "echo '{'; exit 1", "exec /none"]
)
def test_an_ansible_that_is_out_of_order_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    stand_in(tmp_path, monkeypatch, words)
    assert Run(tmp_path, "hosts", "[web]\nweb1\n").names == ["web1"]


def test_what_ansible_refuses_is_refused_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "echo 'ERROR! no vault secrets found' >&2; exit 1")
    problem = refused(tmp_path, "hosts", "[web]\nweb1\n")
    assert "no vault secrets" in problem.cause
    assert "ansible-inventory --list" in problem.cure


def test_an_ansible_that_finds_nothing_leaves_the_reason_to_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = json.dumps({"_meta": {"hostvars": {}}, "all": {"children": ["ungrouped"]}})
    stand_in(tmp_path, monkeypatch, f"echo '{empty}'")
    assert "line 2" in refused(tmp_path, "hosts", "[web]\na b c'\n").message
    stand_in(tmp_path, monkeypatch, "echo '[1]'")
    assert "did not answer" in refused(tmp_path, "hosts", "[web]\na\n").cause


NAMES = st.sampled_from(["web1", "db[1:3]", "n[01:05:2].lan", "x[a:c]", "10.0.0.7"])
VALUES = st.sampled_from(
    [
        ("ansible_host", "10.0.0.1"),
        ("ansible_ssh_host", "10.0.0.2"),
        ("ansible_port", "2222"),
        ("ansible_ssh_port", "2200"),
        ("ansible_user", "ops"),
        ("ansible_ssh_user", "old"),
        ("ansible_ssh_common_args", '-o ProxyCommand="ssh -W %h:%p b" -C'),
        ("ansible_ssh_extra_args", "-J jump"),
        ("ansible_ssh_private_key_file", "~/.ssh/a key"),
        ("http_port", "80"),
    ]
)
OWN = st.lists(VALUES, max_size=3).map(dict)
GROUP = st.fixed_dictionaries({"hosts": st.dictionaries(NAMES, OWN, max_size=3), "vars": OWN})
TREE = st.fixed_dictionaries({"web": GROUP, "db": GROUP, "prod": OWN})


@pytest.mark.skipif(not shutil.which("ansible-inventory"), reason="needs ansible-inventory")
@settings(max_examples=12)
@given(TREE, st.sampled_from(["ini", "yml"]))
def test_our_own_reading_is_ansibles(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], form: str
) -> None:
    path = tmp_path_factory.mktemp("inventory") / f"hosts.{form}"
    path.write_text(_ini(tree) if form == "ini" else _yaml(tree))
    answer = ansible_program.ask(str(path))
    assert answer is not None
    theirs = ansible_program.read(answer, str(path))
    read = ansible.read_ini if form == "ini" else ansible.read_yaml
    ours = read(path.read_text(), str(path))
    assert set(ours.hosts) == set(theirs.hosts)
    assert {name: set(hosts) for name, hosts in ours.groups.items() if hosts} == {
        name: set(hosts) for name, hosts in theirs.groups.items() if hosts
    }


def _ini(tree: dict[str, Any]) -> str:
    lines = ["[prod:children]", "web", "db", "[prod:vars]"]
    lines += [f"{key}={value}" for key, value in tree["prod"].items()]
    for name in ("web", "db"):
        lines.append(f"[{name}]")
        for host, own in tree[name]["hosts"].items():
            lines.append(" ".join([host, *(f"{key}='{value}'" for key, value in own.items())]))
        lines.append(f"[{name}:vars]")
        lines += [f"{key}={value!r}" for key, value in tree[name]["vars"].items()]
    return "\n".join(lines) + "\n"


def _yaml(tree: dict[str, Any]) -> str:
    import yaml

    children = {name: tree[name] for name in ("web", "db")}
    prod = {"prod": {"children": children, "vars": tree["prod"]}}
    return str(yaml.safe_dump({"all": {"children": prod}}))


# -- OpenSSH configurations as inventories --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Host=web1\n  User x\n", ["web1"]),
        ('HOST = "web1" web2 web* !web9\n', ["web1", "web2"]),
        ("Host a\nMatch host b exec true\n  User x\nHost c\n", ["a", "c"]),
        ("host\ta # comment\nMatch all\n  Port 2222\n", ["a"]),
        ("Host a b\n  HostName 10.0.0.1\n", ["a"]),  # one machine
        ("Host a b\n  User x\n", ["a", "b"]),  # two
        ("Host b a\n  HostName 10.0.0.1\nHost c\n  HostName 10.0.0.1\n  Port 2\n", ["b", "c"]),
        ("Include DIR/conf.d/*\nHost z\n", ["in1", "in2", "z"]),
        ("Host in*\n  Include DIR/conf.d/*\nHost z\n", ["in1", "in2", "z"]),
        ("Host z\n  Include DIR/conf.d/*\n", ["z"]),
        ("Match all\n  Include DIR/conf.d/*\n", ["in1", "in2"]),
    ],
)
def test_an_openssh_configuration_lists_its_hosts(
    tmp_path: Path, reader: str, text: str, expected: list[str]
) -> None:
    if reader == "ours":
        text = text.replace(" exec true", " user nobody")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/1").write_text("Host in1\n  HostName 10.0.1.1\n")
    (tmp_path / "conf.d/2").write_text("host=in2\n")
    run = Run(tmp_path, "config", text.replace("DIR", str(tmp_path)))
    assert run.names == expected
    assert run.notes == []


def test_it_is_that_configuration_that_hosts_are_reached_by(tmp_path: Path, reader: str) -> None:
    from moorage.fleet.ssh.routes import routes

    run = Run(tmp_path, "other", "Host web1\n  HostName 10.0.0.1\n  Port 2200\n")
    (found,) = routes(run.hosts, here(tmp_path).nodes)
    assert (found.hostname, found.port) == ("10.0.0.1", 2200)
    # A part of the usual configuration gets the rest of it too.
    (tmp_path / "ssh_config").write_text(f"Include {tmp_path}/other\nHost *\n  User ops\n")
    (found,) = routes(run.hosts, here(tmp_path).nodes)
    assert (found.hostname, found.user) == ("10.0.0.1", "ops")


def test_its_jump_hosts_are_left_out_too(tmp_path: Path, reader: str) -> None:
    text = "Host bastion\n  HostName 10.0.0.9\nHost web1 web2\n  ProxyJump bastion\n"
    run = Run(tmp_path, "config", text)
    assert run.names == ["web1", "web2"]
    assert "bastion is left out" in run.notes[0]
    assert Run(tmp_path, "config", text, hosts="bastion").names == ["bastion", "web1", "web2"]


def test_a_bad_line_of_it_is_told_with_file_and_line(tmp_path: Path, reader: str) -> None:
    problem = refused(tmp_path, "config", 'Host a\n  User "b\n')
    assert "config, line 2" in problem.message
    (tmp_path / "more").write_text('Host "b\n')
    problem = refused(tmp_path, "config", f"Host a\nInclude {tmp_path}/more\n")
    assert "more, line 1" in problem.message


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("node1\nnode2 node3\n", targets.LINES),
        ("host1\nmatch1\n", targets.LINES),
        ("host ansible_host=10.0.0.1\n", targets.ANSIBLE),
        ("[web]\nHost\n", targets.ANSIBLE),
        ("---\nall:\n  hosts:\n    a:\n", targets.ANSIBLE),
        ("Include ~/.ssh/conf.d/*\n", targets.OPENSSH),
        ("# mine\n\n  hOsT=a\n", targets.OPENSSH),
    ],
)
def test_which_kind_a_file_is_is_told_by_its_text(text: str, kind: str) -> None:
    assert listing._kind(text, "f") == kind


def test_one_target_of_a_way_is_no_other() -> None:
    plain, proxied = Target("a", "a"), Target("b", "a", ssh_args=("ProxyJump=j",))
    assert plain.place == proxied.place
    assert plain.way != proxied.way
