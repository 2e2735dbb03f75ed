"""Real sshds in containers: host keys, logins, sudo, disks, jumps. The archive is a stand-in."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.wire.faults import Fault
from agent.wire.report import UNREACHABLE, HostResult
from agent.wire.verbs import named
from moorage import fleet
from moorage.archive import AgentArchive
from moorage.errors import Refused
from moorage.fleet.inventory.selection import Selection
from moorage.fleet.openssh import files, program
from moorage.fleet.report import FleetReport
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.rollout.operation import Operation, Reach
from moorage.fleet.ssh import routing
from moorage.fleet.ssh.routes import LabHosts
from moorage.settings import NodesSettings, Settings
from moorage.ui import UI
from tests.unit.fleet.errand.test_errand import ARCHIVE, DIGEST

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

pytestmark = pytest.mark.engine

PASSWORD = "s3cret-of-oppw"
LABELS = {"io.moorage.project": str(Settings().root), "io.moorage.part": "test"}
DOCKERFILE = rb"""
ARG BASE
FROM $BASE
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq \
      --no-install-recommends openssh-server sudo python3 && rm -rf /var/lib/apt/lists/*
RUN useradd -ms /bin/bash op && useradd -ms /bin/bash oppw && useradd -ms /bin/bash nosudo && \
    useradd -ms /usr/sbin/nologin nologin && \
    echo 'op ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/test && \
    echo 'oppw ALL=(ALL) ALL' >> /etc/sudoers.d/test && \
    echo 'Defaults logfile=/run/sudo.log' >> /etc/sudoers.d/test
"""
START = """
mkdir -p /run/sshd && echo "$PUBLIC" > /run/authorized_keys
[ -z "$PASSWORD" ] || echo "oppw:$PASSWORD" | chpasswd
for kind in ed25519 ecdsa; do ssh-keygen -qt $kind -N '' -f /run/$kind; done
exec /usr/sbin/sshd -De -o LogLevel=VERBOSE -h /run/ed25519 -h /run/ecdsa \
  -o AuthorizedKeysFile=/run/authorized_keys -o StrictModes=no $OPTIONS
"""


@pytest.fixture(scope="session")
def client() -> DockerClient:
    from moorage.docker import engine

    return engine.connect(Settings())


@pytest.fixture(scope="session")
def image(client: DockerClient) -> str:
    from moorage.docker import building, debian

    base = debian.base_image(Settings(), client, UI(yes=True).progress)
    return building.build(
        client,
        {"Dockerfile": DOCKERFILE},
        tag="moorage/test:sshd",
        replace=True,
        labels=LABELS,
        title="a node for tests",
        update=lambda **_: None,
        arguments={"BASE": base},
    )


@dataclasses.dataclass
class Node:
    """An sshd in a container."""

    container: Container
    address: str

    def sh(self, words: str) -> str:
        output = self.container.exec_run(["sh", "-c", words]).output
        assert isinstance(output, bytes)
        return output.decode().strip()

    @property
    def sessions(self) -> int:
        """How many commands it has been asked to run."""
        return self.container.logs().count(b"Starting session: command")

    def public(self, kind: str) -> str:
        return " ".join(self.sh(f"cat /run/{kind}.pub").split()[:2])


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, phrase in (("good", ""), ("other", ""), ("locked", "phrase")):
        command = ["ssh-keygen", "-qt", "ed25519", "-N", phrase, "-C", name]
        subprocess.run([*command, "-f", str(folder / name)], check=True)
    return folder


Start = Callable[..., Node]


@pytest.fixture(scope="session")
def start(client: DockerClient, image: str, keys: Path) -> Iterator[Start]:
    """Starts nodes; all are gone after the last test."""
    running: list[Container] = []
    public = "\n".join((keys / name).with_suffix(".pub").read_text() for name in ("good", "locked"))

    def run(options: str = "", password: str = PASSWORD, **extra: Any) -> Node:
        container = client.containers.run(
            image,
            ["sh", "-c", START],
            environment={"PUBLIC": public, "OPTIONS": options, "PASSWORD": password},
            labels=LABELS,
            detach=True,
            **extra,
        )
        running.append(container)
        deadline = time.monotonic() + 20
        while b"Server listening" not in container.logs():
            assert time.monotonic() < deadline, container.logs().decode()
            time.sleep(0.05)
        container.reload()
        return Node(container, container.attrs["NetworkSettings"]["IPAddress"])

    yield run
    for container in running:
        container.remove(force=True, v=True)


@pytest.fixture(scope="session")
def node(start: Start) -> Node:
    return start()


class Operator:
    """This side: an OpenSSH configuration, a known_hosts file, and runs of the stand-in."""

    def __init__(self, folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.keys = keys
        self.known_hosts = folder / "known_hosts"
        self.config = folder / "config"
        path = folder / "stand-in.pyz"
        path.write_bytes(ARCHIVE)
        monkeypatch.setattr("moorage.archive.errand_archive", lambda _: AgentArchive(path, DIGEST))
        monkeypatch.setattr(routing, "lab_hosts", lambda _: None)
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        self.write("")

    def write(self, text: str, identity: str = "good", extra: str = "") -> None:
        key = f"IdentityFile {self.keys / identity}\n" if identity else ""
        files = f"UserKnownHostsFile {self.known_hosts}\nGlobalKnownHostsFile none\n"
        self.config.write_text(f"{text}\nHost *\n{key}{files}{extra}\n")

    def know(self, node: Node, kind: str = "ed25519", name: str = "") -> None:
        with self.known_hosts.open("a") as file:
            file.write(f"{name or node.address} {node.public(kind)}\n")

    def run(
        self, *hosts: str, yes: bool = False, timeout: int = 10, retries: int = 0, **reach: Any
    ) -> FleetReport:
        nodes = NodesSettings(ssh_config=str(self.config), connect_timeout=timeout, retries=retries)
        settings = dataclasses.replace(Settings(), nodes=nodes)
        task = Operation(named("status"))
        return Fleet(settings, UI(yes=yes), Reach(**reach)).carry_out(task, hosts)

    def one(self, host: str, **options: Any) -> HostResult:
        return self.run(host, **options).hosts[0]

    def fault(self, host: str, **options: Any) -> Fault:
        result = self.one(host, **options)
        assert result.error is not None, result
        assert result.error.cause
        assert result.error.cure
        return result.error


@pytest.fixture
def operator(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, keys, monkeypatch)


# -- host keys


def test_an_unknown_host_key_is_not_accepted(operator: Operator, node: Node) -> None:
    fault = operator.fault(f"root@{node.address}")
    assert fault.code == "unknown-host-key"
    assert "SHA256:" in fault.message
    assert "--learn-host-keys" in fault.cure
    assert operator.one(f"root@{node.address}").status == "unreachable"
    assert not operator.known_hosts.exists()


def test_a_key_that_cannot_be_kept_has_another_cure(operator: Operator, node: Node) -> None:
    operator.write("UserKnownHostsFile /dev/null\nStrictHostKeyChecking no\n")
    fault = operator.fault(f"root@{node.address}")
    assert fault.code == "unknown-host-key"
    assert fault.cure.startswith("set nodes.known_hosts")


def test_a_host_key_is_learnt_once_when_agreed_to(operator: Operator, node: Node) -> None:
    host = f"root@{node.address}"
    assert operator.one(host, yes=True, learn_host_keys=True).ok
    learnt = operator.known_hosts.read_text()
    assert learnt.split()[0] == node.address
    assert operator.known_hosts.stat().st_mode & 0o777 == 0o600
    # Nobody is asked again, so no agreement is needed.
    assert operator.one(host, learn_host_keys=True).ok
    assert operator.known_hosts.read_text() == learnt


def test_a_host_key_is_not_learnt_without_agreement(operator: Operator, node: Node) -> None:
    before = node.sessions
    with pytest.raises(Refused) as refusal:
        operator.run(f"root@{node.address}", learn_host_keys=True)
    assert refusal.value.code == "not-confirmed"
    assert not operator.known_hosts.exists()
    assert node.sessions == before


def test_a_changed_host_key_is_refused_loudly_and_never_learnt(
    operator: Operator, node: Node, keys: Path
) -> None:
    other = " ".join((keys / "other.pub").read_text().split()[:2])
    operator.known_hosts.write_text(f"{node.address} {other}\n")
    for learn in (False, True):
        fault = operator.fault(f"root@{node.address}", yes=True, learn_host_keys=learn)
        assert fault.code == "changed-host-key"
        assert "HAS CHANGED" in fault.message
        assert f"ssh-keygen -R '{node.address}'" in fault.cure
    assert operator.known_hosts.read_text() == f"{node.address} {other}\n"


def test_a_revoked_host_key_is_refused_even_where_it_is_known(
    operator: Operator, node: Node
) -> None:
    operator.know(node)
    operator.know(node, name="@revoked *")
    assert operator.fault(f"root@{node.address}").code == "revoked-host-key"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_the_server_is_asked_for_the_kind_of_key_that_is_known(
    operator: Operator, node: Node, kind: str
) -> None:
    operator.know(node, kind)
    assert operator.one(f"root@{node.address}").ok


def test_an_alias_names_the_host_key(operator: Operator, node: Node) -> None:
    operator.write(f"Host n\n HostName {node.address}\n User root\n HostKeyAlias rack7\n")
    operator.know(node)
    assert operator.fault("n").code == "unknown-host-key"
    operator.know(node, name="rack7")
    assert operator.one("n").ok


def test_hashed_names_are_learnt_and_found(operator: Operator, node: Node) -> None:
    operator.write("", extra="HashKnownHosts yes\n")
    assert operator.one(f"root@{node.address}", yes=True, learn_host_keys=True).ok
    assert operator.known_hosts.read_text().startswith("|1|")
    assert operator.one(f"root@{node.address}").ok


# -- logins


def test_a_user_that_is_not_there_is_told(operator: Operator, node: Node) -> None:
    operator.know(node)
    fault = operator.fault(f"nobody-here@{node.address}")
    assert fault.code == "login-refused"
    assert "nobody-here" in fault.message
    assert "good" in fault.cause


def test_a_user_that_was_not_named_is_told_apart(
    operator: Operator, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "me", lambda: "guessed")
    operator.know(node)
    fault = operator.fault(node.address)
    assert fault.code == "login-refused"
    assert "no user was named" in fault.cause
    assert "nodes.user" in fault.cure


def test_a_key_that_is_not_authorized_is_told(operator: Operator, node: Node) -> None:
    operator.know(node)
    operator.write("", "other")
    fault = operator.fault(f"root@{node.address}")
    assert fault.code == "login-refused"
    assert "ssh-copy-id" in fault.cure


def test_a_locked_key_is_told_with_its_cure(operator: Operator, node: Node) -> None:
    operator.know(node)
    operator.write("", "locked")
    fault = operator.fault(f"root@{node.address}")
    assert fault.code == "key-locked"
    assert "ssh-add" in fault.cure


def test_a_key_file_that_is_not_there_is_told(operator: Operator, node: Node) -> None:
    operator.know(node)
    operator.write("", "missing")
    fault = operator.fault(f"root@{node.address}")
    assert fault.code == "bad-key"
    assert "missing" in fault.cause


def test_a_key_file_that_is_no_key_is_told(operator: Operator, node: Node, keys: Path) -> None:
    operator.know(node)
    (keys / "nonsense").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    operator.write("", "nonsense")
    assert operator.fault(f"root@{node.address}").code == "bad-key"


def test_no_key_at_all_is_told(
    operator: Operator, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "home", lambda: tmp_path)
    operator.know(node)
    operator.write("", "")
    assert operator.fault(f"root@{node.address}").code == "no-key"


def test_a_node_that_takes_no_keys_is_told(operator: Operator, start: Start) -> None:
    node = start("-o PubkeyAuthentication=no")
    operator.know(node)
    assert operator.fault(f"root@{node.address}").code == "no-key-login"


def test_a_node_that_wants_a_second_factor_is_told(operator: Operator, start: Start) -> None:
    node = start("-o AuthenticationMethods=publickey,password")
    operator.know(node)
    assert operator.fault(f"root@{node.address}").code == "second-factor"


@pytest.fixture
def ssh_agent(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An ssh-agent that holds the locked key, opened."""
    path = tmp_path / "agent"
    program = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    ask = tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho phrase\n")
    ask.chmod(0o755)
    while not path.exists():
        time.sleep(0.01)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(path), "SSH_ASKPASS": str(ask)}
    environment["SSH_ASKPASS_REQUIRE"] = "force"
    command = ["ssh-add", "-q", str(keys / "locked")]
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield path
    program.terminate()
    program.wait()


def test_the_key_in_the_agent_opens(operator: Operator, node: Node, ssh_agent: Path) -> None:
    operator.know(node)
    operator.write("", "locked", "IdentitiesOnly yes\n")
    assert operator.one(f"root@{node.address}").ok


def test_a_key_of_the_agent_that_is_not_named_is_not_offered(
    operator: Operator, node: Node, ssh_agent: Path
) -> None:
    operator.know(node)
    operator.write("", "other", "IdentitiesOnly yes\n")
    assert operator.fault(f"root@{node.address}").code == "login-refused"
    operator.write("", "other")
    assert operator.one(f"root@{node.address}").ok
    operator.write("", "other", "IdentityAgent none\n")
    assert operator.fault(f"root@{node.address}").code == "login-refused"


def test_an_agent_is_found_by_its_path(
    operator: Operator, node: Node, ssh_agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK")
    operator.know(node)
    operator.write("", "locked", f"IdentityAgent {ssh_agent}\n")
    assert operator.one(f"root@{node.address}").ok


def test_a_login_without_a_shell_is_told(operator: Operator, node: Node) -> None:
    operator.know(node)
    assert operator.fault(f"nologin@{node.address}").code == "wrong-user"


# -- the way there


def test_a_name_that_no_one_knows_is_told(operator: Operator) -> None:
    fault = operator.fault("root@nowhere.invalid")
    assert fault.code == "unknown-host"
    assert operator.one("root@nowhere.invalid").status == "unreachable"


def test_a_port_without_an_sshd_is_told(operator: Operator, node: Node) -> None:
    assert operator.fault(f"root@{node.address}:2").code == "refused"


@contextlib.contextmanager
def listener(greeting: bytes | None) -> Iterator[int]:
    """A TCP server that greets and goes, or keeps silent where there is no greeting."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    taken.append(connection)
                    if greeting is not None:
                        connection.sendall(greeting)
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        for connection in taken:
            connection.close()


def test_a_server_that_is_no_sshd_is_told(operator: Operator) -> None:
    with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert operator.fault(f"root@127.0.0.1:{port}").code == "no-ssh"


def test_a_server_that_hangs_up_is_told(operator: Operator) -> None:
    with listener(b"") as port:
        assert operator.fault(f"root@127.0.0.1:{port}").code == "no-ssh"


def test_a_server_that_says_nothing_is_given_up(operator: Operator) -> None:
    started = time.monotonic()
    with listener(None) as port:
        assert operator.fault(f"root@127.0.0.1:{port}", timeout=2).code == "timeout"
    assert time.monotonic() - started < 8


def test_others_go_on_when_one_cannot_be_reached(operator: Operator, node: Node) -> None:
    operator.know(node)
    report = operator.run("root@nowhere.invalid", f"root@{node.address}")
    assert [result.status for result in report.hosts] == ["unreachable", "unchanged"]
    assert not report.ok


def test_a_jump_host_is_passed_and_checked_as_strictly(
    operator: Operator, start: Start, node: Node
) -> None:
    bastion = start()
    operator.write(
        f"Host bastion\n HostName {bastion.address}\n User op\n"
        f"Host n\n HostName {node.address}\n User root\n ProxyJump bastion\n"
    )
    operator.know(node)
    fault = operator.fault("n")
    assert fault.code == "unknown-host-key"
    assert "bastion" in fault.message
    operator.known_hosts.unlink()
    # First the jump host is learnt, then what is behind it.
    assert operator.one("n", yes=True, learn_host_keys=True).ok
    assert len(operator.known_hosts.read_text().splitlines()) == 2
    assert f"from {bastion.address} port" in node.container.logs().decode()
    bastion.container.stop(timeout=0)
    assert operator.one("n", timeout=2).status == "unreachable"


def test_behind_a_jump_host_the_registrys_address_has_to_be_set(operator: Operator) -> None:
    operator.write("Host n\n ProxyJump bastion\n")
    settings = dataclasses.replace(Settings(), nodes=NodesSettings(ssh_config=str(operator.config)))
    task = Operation(named("apply"))
    with pytest.raises(Refused) as refusal:
        Fleet(settings, UI()).carry_out(task, ["n"])
    assert refusal.value.code == "no-registry-address"
    assert "registry.address" in refusal.value.cure


def test_a_proxy_command_that_fails_is_told(operator: Operator) -> None:
    operator.write("Host n\n ProxyCommand false\n")
    fault = operator.fault("n", timeout=2)
    assert fault.code == "proxy-failed"
    assert "false" in fault.cause


def test_a_proxy_command_is_used(operator: Operator, node: Node) -> None:
    program = operator.folder / "connect"
    program.write_text(
        "#!/usr/bin/env python3\n"
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def back():\n"
        "    while data := s.recv(65536):\n"
        "        os.write(1, data)\n"
        "    os._exit(0)\n"
        "threading.Thread(target=back, daemon=True).start()\n"
        "while data := os.read(0, 65536):\n"
        "    s.sendall(data)\n"
    )
    program.chmod(0o755)
    operator.write(f"Host n\n HostName {node.address}\n User root\n ProxyCommand {program} %h %p\n")
    operator.know(node)
    assert operator.one("n").ok


def test_a_proxy_command_is_the_shells_as_ssh_has_it(operator: Operator, node: Node) -> None:
    jump = f"ssh -F {operator.folder}/jump -W %h:%p root@{node.address}"
    (operator.folder / "jump").write_text(
        f"IdentityFile {operator.keys / 'good'}\nUserKnownHostsFile {operator.known_hosts}\n"
    )
    command = f"{jump} 2>'{operator.folder}/100%% its.own words' | cat"
    operator.write(f"Host n\n HostName {node.address}\n User root\n ProxyCommand {command}\n")
    operator.know(node)
    assert operator.one("n").ok
    assert (operator.folder / "100% its.own words").exists()


def test_an_address_to_go_out_from_is_used(operator: Operator, node: Node) -> None:
    operator.know(node)
    operator.write(f"Host n\n HostName {node.address}\n User root\n", extra="AddressFamily inet\n")
    assert operator.one("n").ok
    operator.write(f"Host n\n HostName {node.address}\n User root\n", extra="AddressFamily inet6\n")
    assert operator.fault("n").code == "unknown-host"
    # An address that is not this machine's.
    operator.write(f"Host n\n HostName {node.address}\n User root\n BindAddress 192.0.2.1\n")
    assert operator.fault("n").code == "no-route"


def test_a_certificate_for_the_key_is_shown(operator: Operator, start: Start, keys: Path) -> None:
    node = start("-o TrustedUserCAKeys=/run/ca.pub")
    operator.know(node)
    for name in ("ca", "user", "stranger"):
        make = ["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(operator.folder / name)]
        subprocess.run(make, check=True)
    node.sh(f"echo '{(operator.folder / 'ca.pub').read_text().strip()}' > /run/ca.pub")

    def signed(name: str) -> Path:
        command = ["ssh-keygen", "-qs", str(operator.folder / "ca"), "-I", name, "-n", "root"]
        subprocess.run([*command, str(operator.folder / f"{name}.pub")], check=True)
        return operator.folder / f"{name}-cert.pub"

    key = f"IdentityFile {operator.folder / 'user'}\n"
    operator.write(key, "")
    assert operator.fault(f"root@{node.address}").code == "login-refused"
    # One that was issued for another key is passed over.
    operator.write(f"{key}CertificateFile {signed('stranger')}\n", "")
    assert operator.fault(f"root@{node.address}").code == "login-refused"
    elsewhere = signed("user").rename(operator.folder / "elsewhere-cert.pub")
    operator.write(f"{key}CertificateFile {elsewhere}\n", "")
    assert operator.one(f"root@{node.address}").ok
    elsewhere.rename(operator.folder / "user-cert.pub")
    operator.write(key, "")
    assert operator.one(f"root@{node.address}").ok


@pytest.mark.parametrize("way", ["proxy", "jump"])
def test_an_ansible_inventory_is_followed_through_its_bastion(
    operator: Operator, node: Node, start: Start, way: str
) -> None:
    """E4: the nodes are set up through the bastion, and the bastion is not."""
    bastion = start()
    operator.know(node)
    operator.know(bastion)
    args = {
        "proxy": f'-o ProxyCommand="ssh -F {operator.config} -W %h:%p root@{bastion.address}"',
        "jump": f"-J root@{bastion.address}",
    }
    inventory = operator.folder / "hosts"
    inventory.write_text(
        f"[bastion]\nbastion ansible_host={bastion.address} ansible_user=root\n"
        f"[web]\nweb1 ansible_host={node.address} ansible_user=root\n"
        f"[web:vars]\nansible_ssh_common_args='{args[way]}'\n"
        f"ansible_ssh_private_key_file={operator.keys / 'good'}\n"
    )
    operator.write("", identity="other")
    if way == "proxy":
        operator.write("", identity="good")
    nodes = NodesSettings(ssh_config=str(operator.config), retries=0)
    settings = dataclasses.replace(Settings(), nodes=nodes)
    notes: list[str] = []
    hosts = fleet.choose_hosts(
        settings, selection=Selection(None, str(inventory)), tell=notes.append
    )
    assert [host.name for host in hosts] == ["web1"]
    assert "bastion is left out" in notes[0]
    before = bastion.sessions
    reports = [Fleet(settings, UI()).carry_out(Operation(named("status")), hosts)]
    if way == "jump":
        # The key of the variables is the node's own, as ssh has it: the jump host gets its own.
        assert reports[0].hosts[0].status == UNREACHABLE
        operator.write("", identity="good")
        reports.append(Fleet(settings, UI()).carry_out(Operation(named("status")), hosts))
    assert reports[-1].hosts[0].ok, reports[-1].hosts[0]
    assert bastion.sessions == before
    assert f"Accepted publickey for root from {_gateway(bastion)}" in _log(bastion)


def _log(node: Node) -> str:
    return str(node.container.logs().decode())


def _gateway(node: Node) -> str:
    return str(node.container.attrs["NetworkSettings"]["Gateway"])


@pytest.mark.parametrize("reader", ["ssh", "ours"])
def test_a_condition_that_is_not_met_never_leads_to_another_machine(
    operator: Operator, node: Node, start: Start, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start()
    operator.know(node)
    operator.know(other)
    if reader == "ours":
        monkeypatch.setattr(program, "find", lambda: None)
    conditions = ["Match Host db*", "match OriginalHost n HOST db*", "Match !Host n", "Match !ALL",
                  "Match LocalUser nobody", "Match Host n Exec false"]  # fmt: skip
    if reader == "ours":
        conditions.pop()  # refused: only ssh runs programs to decide
    blocks = "".join(f"{line}\n HostName {other.address}\n" for line in conditions)
    operator.write(f"{blocks}Host N n\n HostName {node.address}\n User root\n")
    before = other.sessions
    assert operator.one("n").ok
    assert other.sessions == before


def test_a_lab_node_that_was_given_a_new_address_is_found_again(
    operator: Operator, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of its container: the lab's file is old until the engine is asked."""
    path = operator.folder / "lab"

    def write(address: str) -> None:
        key = f"IdentityFile {operator.keys / 'good'}\n UserKnownHostsFile {operator.known_hosts}"
        path.write_text(f"Host lab1\n HostName {address}\n User root\n HostKeyAlias l1\n {key}\n")

    write("127.0.0.1\n Port 1")
    operator.know(node, name="l1")
    lab = routing.Lab(("lab1",), LabHosts(frozenset({"lab1"}), path))
    monkeypatch.setattr(routing, "lab_hosts", lambda _: lab)
    monkeypatch.setattr("lab.nodes", lambda *_: write(node.address))
    assert operator.one("lab1").ok


# -- root


def test_root_and_sudo_without_a_password_just_work(operator: Operator, node: Node) -> None:
    operator.know(node)
    for user in ("root", "op"):
        assert operator.one(f"{user}@{node.address}").ok


def test_sudo_that_wants_a_password_says_so(operator: Operator, node: Node) -> None:
    operator.know(node)
    fault = operator.fault(f"oppw@{node.address}")
    assert fault.code == "sudo-needs-password"
    assert "--ask-sudo-password" in fault.cure


def test_sudo_with_the_password(operator: Operator, node: Node) -> None:
    operator.know(node)
    report = operator.run(f"oppw@{node.address}", sudo_password=PASSWORD)
    assert report.hosts[0].ok
    assert report.runtimes == {f"oppw@{node.address}": "stand-in"}


def test_a_password_that_sudo_does_not_ask_for_never_reaches_the_agent(
    operator: Operator, node: Node
) -> None:
    operator.know(node)
    for user in ("op", "root"):
        assert operator.one(f"{user}@{node.address}", sudo_password=PASSWORD).ok


def test_a_wrong_password_costs_one_try_only(operator: Operator, node: Node) -> None:
    operator.know(node)
    assert operator.fault(f"oppw@{node.address}", sudo_password="x").code == "wrong-sudo-password"
    assert "1 incorrect password attempt" in node.sh("cat /run/sudo.log")


def test_a_user_without_sudo_is_told(operator: Operator, node: Node) -> None:
    operator.know(node)
    node.sh("echo nosudo:pw | chpasswd")
    fault = operator.fault(f"nosudo@{node.address}", sudo_password="pw")
    assert fault.code == "sudo-refused"


def test_a_node_without_sudo_is_told(operator: Operator, start: Start) -> None:
    node = start()
    node.sh("rm /usr/bin/sudo")
    operator.know(node)
    assert operator.fault(f"op@{node.address}").code == "no-sudo"


def test_a_sudo_that_wants_a_terminal_is_told(operator: Operator, start: Start) -> None:
    node = start()
    node.sh("echo 'Defaults requiretty' >> /etc/sudoers.d/test")
    operator.know(node)
    assert operator.fault(f"op@{node.address}").code == "sudo-wants-tty"


# -- the errand


def test_the_archive_travels_once_and_then_one_command_is_enough(
    operator: Operator, start: Start
) -> None:
    node = start()
    operator.know(node)
    assert operator.one(f"op@{node.address}").ok
    assert node.sessions == 2
    assert operator.one(f"op@{node.address}").ok
    assert node.sessions == 3
    assert node.sh("stat -c '%U %a' /var/lib/moorage/agent") == "root 700"
    assert node.sh(f"stat -c '%U %a' /var/lib/moorage/agent/{DIGEST}.pyz") == "root 600"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"tmpfs": {"/var/lib": "size=64k"}}, "no-room"),
        ({"read_only": True, "tmpfs": {"/run": "exec", "/tmp": ""}}, "read-only-disk"),
    ],
)
def test_a_disk_that_takes_no_archive_is_told(
    operator: Operator, start: Start, extra: dict[str, Any], expected: str
) -> None:
    node = start(password="", **extra)
    operator.know(node)
    fault = operator.fault(f"root@{node.address}")
    assert fault.code == expected
    assert "/var/lib/moorage" in fault.cause
    assert node.sh("find /var/lib/moorage -type f 2>/dev/null") == ""


def test_a_node_without_python_is_told(operator: Operator, start: Start) -> None:
    node = start()
    node.sh("rm /usr/bin/python3*")
    operator.know(node)
    assert operator.fault(f"root@{node.address}").code == "no-python"


def test_a_node_that_dies_in_the_middle_is_told(operator: Operator, start: Start) -> None:
    node = start()
    operator.know(node)
    operator.one(f"root@{node.address}")
    node.sh(f"echo 'sleep 30; exit 0' > /slow; chmod 755 /slow;"
            f"echo /slow > /var/lib/moorage/agent/{DIGEST}.python;"
            "sed -i '1i#!/bin/sh' /slow")  # fmt: skip
    killer = threading.Timer(1.5, node.container.kill)
    killer.start()
    fault = operator.fault(f"root@{node.address}")
    killer.join()
    assert fault.code == "connection-lost"


def test_a_node_that_comes_back_is_gone_to_again(operator: Operator, start: Start) -> None:
    node = start()
    operator.know(node)
    operator.one(f"root@{node.address}")
    # The first time, the line breaks under the agent; the second time, it is there.
    node.sh(f"cp /var/lib/moorage/agent/{DIGEST}.python /right;"
            "printf '#!/bin/sh\\ncp /right /var/lib/moorage/agent/"
            f"{DIGEST}.python; pkill -KILL -f sshd:.root\\n' > /cut; chmod 755 /cut;"
            f"echo /cut > /var/lib/moorage/agent/{DIGEST}.python")  # fmt: skip
    assert operator.one(f"root@{node.address}", retries=2).status == "unchanged"


def test_a_silent_agent_is_given_up(
    operator: Operator, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.fleet.rollout.plans.patience", lambda _: 2.0)
    node = start()
    operator.know(node)
    operator.one(f"root@{node.address}")
    node.sh("printf '#!/bin/sh\\nsleep 30\\n' > /slow; chmod 755 /slow;"
            f"echo /slow > /var/lib/moorage/agent/{DIGEST}.python")  # fmt: skip
    started = time.monotonic()
    assert operator.fault(f"root@{node.address}").code == "agent-silent"
    assert time.monotonic() - started < 10
