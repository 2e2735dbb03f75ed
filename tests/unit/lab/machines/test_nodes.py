"""Real lab nodes, one of each containerd line: what they are, and how they are kept and mended."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import NotFound
from docker.models.containers import Container

import lab
from lab.machines import access, containers
from lab.machines.node import LABEL_LINE, LABEL_RECIPE, container_name
from moorage.docker import engine
from moorage.errors import MoorageError, Refused
from moorage.mix import LINES
from moorage.settings import LabSettings, Settings
from moorage.ui import UI
from tests.unit.elsewhere import project

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here"),
]
MIX = ",".join(LINES)


class Lab:
    """A lab of its own name, so that a lab of the checkout's may be up beside it."""

    def __init__(self, root: Path, client: DockerClient) -> None:
        letters = "".join(secrets.choice("abcdefghij") for _ in range(6))
        self.settings: Settings = project(root, lab=LabSettings(nodes=MIX, prefix=f"t-{letters}"))
        self.client = client
        self.ui = UI(yes=True)

    def up(self, mix: str | None = None) -> dict[str, lab.LabNode]:
        return {node.name: node for node in lab.up(self.settings, self.client, self.ui, mix)}

    def name(self, number: int) -> str:
        return f"{self.settings.lab.prefix}{number}"

    def container(self, number: int) -> Container:
        return self.client.containers.get(container_name(self.name(number)))

    def address(self, number: int) -> str:
        networks = self.container(number).attrs["NetworkSettings"]["Networks"]
        return str(networks["bridge"]["IPAddress"])

    def ids(self) -> list[str]:
        found = containers.existing(self.settings, self.client)
        return [str(found[number].id) for number in sorted(found)]

    def ssh(
        self, number: int, command: str, user: str = "root", stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        argv = lab.ssh_command(self.settings, self.name(number), command)
        argv[1:1] = ["-l", user, "-o", "BatchMode=yes"]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    client = engine.connect(Settings())
    ours = Lab(tmp_path_factory.mktemp("lab"), client)
    ours.up()
    yield ours
    lab.down(ours.settings, client, ours.ui)
    client.close()


@pytest.fixture
def whole(shared: Lab) -> Lab:
    """The shared lab, with whatever an earlier test has changed mended."""
    shared.up()
    return shared


def test_every_line_serves_cri_with_its_own_version(whole: Lab) -> None:
    nodes = whole.up()
    for number, line in enumerate(LINES.values(), start=1):
        assert nodes[whole.name(number)].version.startswith(line.version)
        plugins = whole.ssh(number, "ctr plugins ls").stdout
        assert re.search(r"^io\.containerd\.grpc\.v1 +cri .* ok *$", plugins, re.MULTILINE)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_node_is_a_whole_system_as_debian_ships_it(whole: Lab, number: int) -> None:
    said = whole.ssh(
        number, "systemctl is-system-running --wait; dpkg --verify containerd; python3 -V; hostname"
    ).stdout.splitlines()
    assert said[0] == "running"
    # The package's own config.toml, and nothing from a later suite but containerd.
    assert [line for line in said[1:] if "/usr/share/" not in line][:-2] == []
    assert said[-1] == whole.name(number)
    later = whole.ssh(number, "dpkg-query -W -f '${Package} ${Version}\\n' runc libc6 systemd")
    assert "runc 1.1.5" in later.stdout
    assert "libc6 2.36" in later.stdout


def test_a_node_is_not_privileged_and_its_volume_is_ours(whole: Lab) -> None:
    attributes = whole.container(1).attrs
    assert not attributes["HostConfig"]["Privileged"]
    (volume,) = [m["Name"] for m in attributes["Mounts"] if m["Type"] == "volume"]
    labels = whole.client.volumes.get(volume).attrs["Labels"]
    assert labels[engine.LABEL_PROJECT] == str(whole.settings.root)


def test_sudo_with_and_without_a_password(whole: Lab) -> None:
    password = access.password_file(whole.settings).read_text()
    assert whole.ssh(1, "sudo -n id -u", "operator").stdout == "0\n"
    assert whole.ssh(1, "sudo -n id -u", "operator-pw").returncode != 0
    assert whole.ssh(1, "sudo -S id -u", "operator-pw", password).stdout == "0\n"
    assert whole.ssh(1, "sudo -S id -u", "operator-pw", "wrong\n").returncode != 0


def test_the_password_is_nowhere_to_be_read(whole: Lab) -> None:
    password = access.password_file(whole.settings).read_text().strip()
    container = whole.container(1)
    assert password not in json.dumps(container.attrs)
    assert password.encode() not in container.logs()
    assert password not in whole.ssh(1, "journalctl -b; cat /etc/lab/* /proc/*/cmdline").stdout


def test_a_second_up_changes_nothing(whole: Lab) -> None:
    before, config = whole.ids(), access.ssh_config(whole.settings)
    written = config.stat().st_mtime_ns
    whole.up()
    assert whole.ids() == before
    assert config.stat().st_mtime_ns == written
    assert lab.pending(whole.settings) == []


def test_what_is_missing_stopped_killed_or_paused_is_mended(whole: Lab) -> None:
    before = whole.ids()
    whole.container(1).stop(timeout=5)
    whole.container(2).pause()
    whole.container(3).remove(force=True, v=True)
    assert [node.name for node in lab.nodes(whole.settings, whole.client)] == []
    assert any("start" in action.text for action in lab.pending(whole.settings))
    whole.up()
    assert whole.ids()[:2] == before[:2]
    assert whole.ids()[2] not in before
    assert all(whole.ssh(number, "true").returncode == 0 for number in (1, 2, 3))


def test_one_that_was_cut_off_while_being_made_is_made_anew(whole: Lab) -> None:
    old = whole.container(2)
    image, labels = old.attrs["Config"]["Image"], old.labels
    assert labels[LABEL_LINE] == "1.7"
    assert labels[LABEL_RECIPE]
    old.remove(force=True, v=True)
    # As kill -9 leaves it between making and starting: labelled as ours, and without its keys.
    name = container_name(whole.name(2))
    half = whole.client.api.create_container(image, name=name, labels=labels)["Id"]
    whole.up()
    assert whole.container(2).id != half
    assert whole.ssh(2, "true").returncode == 0


def test_a_restarted_node_is_followed_to_its_new_address(whole: Lab) -> None:
    whole.up()
    first, second = whole.container(1), whole.container(2)
    first.stop(timeout=5)
    second.stop(timeout=5)
    second.start()  # takes the address that came free first
    first.start()
    moved = [node.address for node in lab.nodes(whole.settings, whole.client)[:2]]
    assert moved == [whole.address(1), whole.address(2)]
    whole.up()
    assert whole.ssh(1, "hostname").stdout == f"{whole.name(1)}\n"
    assert whole.ssh(2, "hostname").stdout == f"{whole.name(2)}\n"


def test_another_host_key_than_the_engine_told_is_not_talked_to(whole: Lab) -> None:
    known = access.folder(whole.settings) / "known_hosts"
    text = known.read_text()
    keys = re.findall(r"ssh-ed25519 (\S+)", text)
    known.write_text(text.replace(keys[0], keys[1]))
    done = whole.ssh(1, "true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr
    whole.up()
    assert whole.ssh(1, "true").returncode == 0


def test_a_mix_grows_and_shrinks_and_keeps_what_is_right(whole: Lab) -> None:
    before = whole.ids()
    assert len(whole.up(f"{MIX},2*2")) == 5
    assert whole.ids()[:3] == before
    assert len(whole.up("1.6,1.6")) == 2
    assert whole.ids()[0] == before[0]
    assert whole.ids()[1] != before[1]  # another line under the name


def test_a_node_that_is_still_starting_is_waited_for(
    whole: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_in = "/etc/systemd/system/containerd.service.d/slow.conf"
    slow = "mkdir -p ${0%/*}; printf '[Service]\\nExecStartPre=/bin/sleep 4\\n' >$0"
    whole.container(1).exec_run(["sh", "-c", slow, drop_in])
    whole.container(1).restart(timeout=0)  # as a killed `up` leaves it: running, not serving yet
    whole.up()
    whole.container(1).exec_run(["rm", drop_in])
    assert "not well" not in capsys.readouterr().err
    assert whole.ssh(1, "true").returncode == 0


def test_a_node_that_was_spoilt_is_told_and_left_for_its_owner(
    whole: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_READY_SECONDS", 4)  # it has been up for longer
    before = whole.ids()
    spoil = "echo 'x =' >/etc/containerd/config.toml; systemctl restart containerd"
    assert whole.ssh(3, spoil).returncode != 0
    whole.up()
    assert whole.ids() == before
    said = capsys.readouterr().err
    assert f"{whole.name(3)} runs, but is not well" in said
    assert "failed to unmarshal TOML" in said
    whole.container(3).remove(force=True, v=True)


def test_a_node_that_does_not_get_ready_is_a_failure_with_its_words(
    whole: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_READY_SECONDS", 4)
    assert whole.ssh(3, "echo 'x =' >/etc/containerd/config.toml").returncode == 0
    whole.container(3).stop(timeout=5)
    with pytest.raises(MoorageError) as failure:
        whole.up()
    assert failure.value.host == whole.name(3)
    assert "failed to unmarshal TOML" in failure.value.cause
    whole.container(3).remove(force=True, v=True)


def test_a_container_of_somebody_else_is_never_touched(whole: Lab) -> None:
    image = whole.container(1).attrs["Config"]["Image"]
    name = container_name(whole.name(4))
    stranger = whole.client.containers.create(
        image, ["sleep", "9"], name=name, labels={engine.LABEL_PROJECT: "/elsewhere"}
    )
    # One run by hand from a node's image inherits the image's labels, and is no node of ours.
    guest = whole.client.containers.create(image, ["true"])
    try:
        with pytest.raises(Refused) as refusal:
            whole.up(f"{MIX},2")
        assert refusal.value.code == "name-taken"
        assert "/elsewhere, a folder that is no longer here" in refusal.value.cause
        whole.up()
        lab.down(whole.settings, whole.client, whole.ui)
        assert whole.client.containers.get(name).id == stranger.id
        guest.reload()
    finally:
        stranger.remove(force=True)
        guest.remove(force=True)


def test_down_leaves_nothing_and_can_be_said_twice(whole: Lab) -> None:
    volumes = [m["Name"] for m in whole.container(1).attrs["Mounts"] if m["Type"] == "volume"]
    assert lab.down(whole.settings, whole.client, whole.ui).changed
    assert whole.ids() == []
    for volume in volumes:
        with pytest.raises(NotFound):
            whole.client.volumes.get(volume)
    assert not access.folder(whole.settings).exists()
    assert not lab.ssh_config(whole.settings).exists()
    assert not lab.down(whole.settings, whole.client, whole.ui).changed
