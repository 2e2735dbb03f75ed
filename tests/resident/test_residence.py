"""The agent that stays, on a real node: systemd, its sandbox, SSH, the port open and closed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("docker")

from moorage import fleet
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.rollout.operation import Wish
from moorage.pki import authority
from moorage.pki.roster import Roster
from moorage.ui import UI
from tests.agent.real import Registry, put
from tests.resident.lab import ResidentNode, drift, run, until

pytestmark = pytest.mark.engine


@pytest.fixture
def adopted(node: ResidentNode, ui: UI) -> Iterator[ResidentNode]:
    report = Fleet(node.settings, ui).run("adopt", ["node"])
    assert report.ok, (report, node.sh("journalctl -u moorage-agent -n 30 --no-pager")[1])
    yield node
    assert Fleet(node.settings, ui).run("release", ["node"]).ok


def test_it_stays_in_its_sandbox_and_answers_over_the_port(adopted: ResidentNode, ui: UI) -> None:
    asked = "ActiveState,NoNewPrivileges,ProtectSystem,MemoryMax,TasksMax,WatchdogUSec,Restart"
    assert set(adopted.sh(f"systemctl show moorage-agent -p {asked}")[1].split()) == {
        "ActiveState=active", "NoNewPrivileges=yes", "ProtectSystem=strict", "Restart=always",
        f"MemoryMax={512 << 20}", "TasksMax=256", "WatchdogUSec=1min",
    }  # fmt: skip
    report = Fleet(adopted.settings, ui).run("status", ["node"])
    state = report.states["node"]["resident"]
    assert (state["drift"]["state"], report.ok) == ("watching", True)
    calls = adopted.sh("systemctl show moorage-agent -p SystemCallFilter --value")[1].split()
    assert {"execve", "mount"} <= set(calls)
    assert not {"kexec_load", "init_module", "reboot", "bpf"} & set(calls)
    # A write outside what is open to it fails for its process, root or not.
    pid = adopted.sh("systemctl show -p MainPID --value moorage-agent")[1].strip()
    held = adopted.sh(f"grep -E '^(NoNewPrivs|Seccomp):' /proc/{pid}/status")[1].split()
    assert held == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    code, said = adopted.sh(f"nsenter -t {pid} -m touch /usr/bin/x")
    assert code != 0
    assert "Read-only" in said


def test_closed_port_goes_through_ssh_and_a_stopped_agent_by_ssh_alone(
    node: ResidentNode, ui: UI
) -> None:
    assert Fleet(node.settings, ui).run("adopt", ["node"], Wish(loopback=True)).ok
    try:
        report = Fleet(node.settings, ui).run("status", ["node"])
        assert report.ok
        assert "resident" in report.states["node"]
        node.sh("systemctl stop moorage-agent")
        report = Fleet(node.settings, ui).run("status", ["node"])
        assert report.ok
        assert "resident" not in report.states["node"]
    finally:
        assert Fleet(node.settings, ui).run("release", ["node"]).ok


def test_release_leaves_the_node_as_it_was(node: ResidentNode, ui: UI) -> None:
    look = "find /etc /usr/local /var/lib/moorage -not -path '*/agent*' -newer /root/mark; ss -ltn"
    before = node.sh("touch /root/mark; find /etc -type f | sort | xargs sha256sum; ss -ltn")[1]
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    assert f":{node.settings.nodes.agent_port}" in node.sh(look)[1]
    assert Fleet(node.settings, ui).run("release", ["node"]).ok
    assert node.sh("find /etc -type f | sort | xargs sha256sum; ss -ltn")[1] == before
    assert node.sh("test -d /var/lib/moorage/resident")[0] != 0
    assert Roster(node.settings).residents() == {}


def test_the_sandboxed_service_sets_trust_up_and_puts_back_what_drifts(
    adopted: ResidentNode, ui: UI, registry: Registry
) -> None:
    files = "find /etc -type f | sort | xargs sha256sum"
    before, hosts = adopted.sh(files)[1], adopted.read("/etc/hosts") or b""
    report = run(adopted, ui, registry, "apply")
    assert report.hosts[0].restarts == ("containerd.service",), report
    assert "POST" in adopted.sh("journalctl -u moorage-agent -n 20 -o cat")[1]
    trusted = adopted.read("/etc/hosts")
    assert registry.address.encode() in (trusted or b"")
    adopted.write_hosts(hosts)
    until(lambda: adopted.read("/etc/hosts") == trusted, adopted)
    adopted.sh("rm -r /etc/containerd/certs.d")
    ca = "/etc/containerd/certs.d/my.registry.io/ca.crt"
    until(lambda: adopted.sh(f"test -f {ca}")[0] == 0, adopted)
    # The last file is there a moment before the agent has counted.
    until(lambda: drift(adopted, ui)["healed"] == 2, adopted)
    assert run(adopted, ui, registry, "untrust").ok
    time.sleep(1.5)
    assert adopted.sh(files)[1] == before


def test_of_homes_the_sandbox_opens_what_a_rootless_engine_reads_alone(
    node: ResidentNode, ui: UI, registry: Registry
) -> None:
    """An engine that does not run now, known by its user's own unit."""
    node.sh(
        "useradd -m ship; useradd -m other; mkdir -p /home/ship/.config/systemd/user; "
        "touch /home/ship/.config/systemd/user/docker.service; chown -R ship /home/ship"
    )
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    try:
        assert run(node, ui, registry, "apply").ok
        ours = "/home/ship/.config/docker/certs.d/my.registry.io/ca.crt"
        assert node.read(ours) == registry.authority.pem.encode()
        pid = node.sh("systemctl show -p MainPID --value moorage-agent")[1].strip()
        for path in ("/home/other/x", "/home/ship/x", "/root/x"):
            assert node.sh(f"nsenter -t {pid} -m touch {path}")[0] != 0, path
        assert run(node, ui, registry, "untrust").ok
        assert node.read(ours) is None
    finally:
        assert Fleet(node.settings, ui).run("release", ["node"]).ok
        node.sh("userdel -rf ship; userdel -rf other")


def test_a_local_user_who_swaps_what_is_written_gets_nowhere(
    adopted: ResidentNode, ui: UI, registry: Registry
) -> None:
    """mallory renames and links over every path that is written, all the while it is written."""
    places = (
        "/etc/hosts /etc/containerd /etc/containerd/config.toml /etc/containerd/certs.d "
        "/etc/containerd/certs.d/my.registry.io /etc/containerd/certs.d/my.registry.io/ca.crt "
        "/var/lib/moorage /var/lib/moorage/active /var/lib/moorage/resident/agent.pyz "
        "/etc/systemd/system/moorage-agent.service"
    )
    swap = (
        "while [ ! -e /tmp/end ]; do echo round; "
        f"for p in {places}; do mv -T $p $p.old 2>/dev/null && echo IN $p; "
        "ln -sfnT /tmp/victim $p 2>/dev/null && echo IN $p; done; done > /tmp/swapped"
    )
    adopted.sh(
        "useradd mallory; mkdir -m 777 /tmp/victim; touch /tmp/swapped; chmod 666 /tmp/swapped"
    )
    adopted.sh(f"su mallory -s /bin/sh -c '{swap}' & ")
    try:
        for _ in range(2):
            assert run(adopted, ui, registry, "apply").ok
            assert run(adopted, ui, registry, "untrust").ok
    finally:
        adopted.sh("touch /tmp/end; sleep 1")
    lines = adopted.sh("sort /tmp/swapped | uniq -c; ls -A /tmp/victim")[1].split()
    assert (lines[1:], int(lines[0]) > 10) == (["round"], True), lines


def test_a_port_in_use_is_a_sentence_and_nothing_is_left(node: ResidentNode, ui: UI) -> None:
    report = Fleet(node.settings, ui).run("adopt", ["node"], Wish(port=22))
    fault = report.hosts[0].error
    assert fault is not None
    assert fault.code == "port-in-use"
    assert "--port" in fault.cure
    assert node.sh("test -f /etc/systemd/system/moorage-agent.service")[0] != 0
    assert node.sh("test -e /var/lib/moorage/resident")[0] != 0


def test_a_forgotten_agent_is_gone_from_the_node_and_asked_no_more(
    node: ResidentNode, ui: UI
) -> None:
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    before = Roster(node.settings).residents()["node"].id
    assert Fleet(node.settings, ui).forget(["node"]) == {"node": "released"}
    assert node.sh("systemctl is-active moorage-agent")[0] != 0
    assert Fleet(node.settings, ui).forget(["node"]) == {"node": "no-agent"}
    assert "resident" not in Fleet(node.settings, ui).run("status", ["node"]).states["node"]
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    assert Roster(node.settings).residents()["node"].id != before
    assert Fleet(node.settings, ui).run("release", ["node"]).ok


def test_a_node_left_alone_serves_on_and_is_believed_no_more_until_it_is_another(
    node: ResidentNode, ui: UI
) -> None:
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    before = Roster(node.settings).residents()["node"].id
    assert Fleet(node.settings, ui).forget(["node"], offline=True) == {"node": "left-alone"}
    assert node.sh("systemctl is-active moorage-agent")[0] == 0
    assert "resident" not in Fleet(node.settings, ui).run("status", ["node"]).states["node"]
    # It still has the settings of before, and asks for its old number.
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    assert Roster(node.settings).residents()["node"].id != before
    assert "resident" in Fleet(node.settings, ui).run("status", ["node"]).states["node"]
    assert Fleet(node.settings, ui).run("release", ["node"]).ok


def test_the_certificate_is_renewed_on_a_visit_and_the_operators_replaced(
    adopted: ResidentNode, ui: UI, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Roster(adopted.settings).residents()["node"]
    monkeypatch.setattr(authority, "RENEW_DAYS", 365)
    assert Fleet(adopted.settings, ui).run("status", ["node"]).ok
    after = Roster(adopted.settings).residents()["node"]
    assert (after.id, after.serial != before.serial) == (before.id, True)
    assert fleet.replace_operator(adopted.settings) == 2
    state = Fleet(adopted.settings, ui).run("status", ["node"]).states["node"]
    assert state["resident"]["certificate_ends"] == after.until


def test_an_upgrade_that_does_not_serve_goes_back(
    adopted: ResidentNode, ui: UI, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moorage import archive

    main = archive.MAIN
    spoilt = main.replace("end(run(archive))", "end(1 if 'serve' in sys.argv else run(archive))")
    assert spoilt != main
    working = main + "# another one\n"
    fleet = Fleet(adopted.settings, ui)
    running = digest_of(fleet)
    monkeypatch.setattr(archive, "MAIN", working)
    report = fleet.run("upgrade", ["node"])
    assert report.hosts[0].status == "changed", report
    newer = digest_of(fleet)
    assert newer != running
    monkeypatch.setattr(archive, "MAIN", spoilt)
    report = fleet.run("upgrade", ["node"])
    assert (report.hosts[0].error or pytest.fail()).code == "upgrade-not-taken"
    assert digest_of(fleet) == newer


def digest_of(fleet: Fleet) -> str:
    return str(fleet.run("status", ["node"]).states["node"]["resident"]["digest"])


def test_uvloop_is_used_where_the_node_has_it_and_not_needed_where_it_has_not(
    adopted: ResidentNode, ui: UI, registry: Registry
) -> None:
    """This environment's own, put where the node's Python (3.11, as ours) finds its packages."""
    uvloop = pytest.importorskip("uvloop")
    maps = "grep -c uvloop /proc/$(systemctl show -p MainPID --value moorage-agent)/maps"
    assert adopted.sh(maps)[1].strip() == "0"
    home = "usr/lib/python3/dist-packages/uvloop"
    files = [path for path in Path(uvloop.__file__).parent.rglob("*") if path.is_file()]
    root = Path(uvloop.__file__).parent
    put(adopted.container, "/", {
        f"{home}/{path.relative_to(root)}": path.read_bytes()
        for path in files if path.suffix in (".py", ".so")
    })  # fmt: skip
    adopted.sh("systemctl restart moorage-agent")
    try:
        until(lambda: int(adopted.sh(maps)[1]) > 0, adopted)
        assert run(adopted, ui, registry, "apply").ok
        trusted = adopted.read("/etc/hosts")
        adopted.sh("grep -v registry /etc/hosts > /root/less; cat /root/less > /etc/hosts")
        until(lambda: adopted.read("/etc/hosts") == trusted, adopted)
        until(lambda: drift(adopted, ui)["healed"] == 1, adopted)
        assert run(adopted, ui, registry, "untrust").ok
    finally:
        adopted.sh(f"rm -r /{home}; systemctl restart moorage-agent")
