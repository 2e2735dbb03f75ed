"""Agents are asked where they were met last, with real agents: what is not read for it, and what
becomes of an address that is another node's now."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time

import pytest

from moorage.fleet.report import FleetReport
from moorage.fleet.rollout.fleet import Fleet
from moorage.pki import authority
from moorage.pki.authority import Authority
from moorage.pki.roster import Resident, Roster
from moorage.settings import ROOT
from moorage.ui import UI
from tests.adopted import Agent, Folder, adopt
from tests.agent.authority import Authority as RegistryAuthority
from tests.agent.conftest import Box

HOST = "127.0.0.1"


def remember(folder: Folder, address: str = HOST, **changed: object) -> None:
    roster = Roster(folder.settings)
    known = roster.residents()[HOST]
    roster.put(HOST, dataclasses.replace(known, address=address, **changed))  # type: ignore[arg-type]


def status(folder: Folder) -> FleetReport:
    nodes = dataclasses.replace(folder.settings.nodes, retries=0)
    settings = dataclasses.replace(folder.settings, nodes=nodes)
    return Fleet(settings, UI(as_json=True)).run("status", [folder.target])


def test_no_ssh_configuration_is_read_for_an_agent_that_answers(folder: Folder) -> None:
    (folder.path / "ssh_config").write_text("Match nonsense\n")
    remember(folder)
    assert "resident" in status(folder).states["node1"]


def test_where_it_does_not_answer_the_whole_way_is_read(folder: Folder) -> None:
    (folder.path / "ssh_config").write_text("Match nonsense\n")
    remember(folder)
    folder.agent.stop()
    fault = status(folder).hosts[0].error
    assert fault is not None
    assert "ssh_config" in fault.message


def test_an_address_that_is_another_nodes_now_is_passed_over(folder: Folder) -> None:
    identity, root = "2" * 32, folder.path / "second"
    Box(root, RegistryAuthority().pem)
    made = adopt(Authority.open(folder.settings), root, identity, "127.0.0.2", folder.port)
    agent = Agent(root, "127.0.0.2", folder.port)
    try:
        # Where node1's agent answers now; OpenSSH knows where node2 really is.
        Roster(folder.settings).put("node2", dataclasses.replace(made, address=HOST))
        (folder.path / "ssh_config").write_text("Host node2\n  HostName 127.0.0.2\n")
        report = Fleet(folder.settings, UI(as_json=True)).run("status", ["node2"])
        assert "resident" in report.states["node2"]
    finally:
        agent.stop()


def test_a_run_over_agents_alone_loads_neither_paramiko_nor_cryptography(folder: Folder) -> None:
    remember(folder)
    assert authority.checked_context(folder.settings) is not None
    program = (
        "import sys, pathlib\n"
        "from moorage.fleet.rollout.fleet import Fleet\n"
        "from moorage.fleet.inventory import Target\n"
        "from moorage.settings import CertsSettings, Settings\n"
        "from moorage.ui import UI\n"
        "settings = Settings(certs=CertsSettings(dir=sys.argv[1]))\n"
        "fleet = Fleet(settings, UI(as_json=True))\n"
        "report = fleet.run('status', [Target('node1', '127.0.0.1')])\n"
        "assert 'resident' in report.states['node1'], report\n"
        "print([name for name in ('paramiko', 'fabric', 'cryptography') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder.settings.certs_dir)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_changed_files_are_looked_at_anew(folder: Folder) -> None:
    assert authority.checked_context(folder.settings) is not None
    operator = folder.settings.certs_dir / "fleet" / "operator.crt"
    operator.write_bytes(operator.read_bytes() + b"\n")
    assert authority.checked_context(folder.settings) is None
    Authority.open(folder.settings)
    assert authority.checked_context(folder.settings) is not None


def test_a_certificate_near_its_end_is_looked_at_anew(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    year = time.time() + (authority.OPERATOR_DAYS - 29) * 86400
    monkeypatch.setattr("moorage.pki.authority.time.time", lambda: year)
    assert authority.checked_context(folder.settings) is None


def test_an_older_roster_has_no_addresses(folder: Folder) -> None:
    known = Roster(folder.settings).residents()[HOST]
    assert known == Resident(known.id, known.port, known.serial, known.until, "")
    assert "resident" in status(folder).states["node1"]
