"""A fleet that an earlier build adopted is commanded, upgraded and released by this one.

The earlier build is a commit of this repository, as `git archive` gives it; it adopts a real node.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from moorage.fleet.rollout.fleet import Fleet
from moorage.settings import ROOT
from moorage.ui import UI
from tests.agent.real import Registry
from tests.resident.lab import ResidentNode, run

# The last build whose agents took an archive over HTTPS, signed by the fleet CA.
BEFORE = "779e21e092219c57ecebe6aaa08fa2e5235e19e6"
ADOPT = """
import sys
from moorage import fleet
from moorage.settings import CertsSettings, NodesSettings, Settings
from moorage.ui import UI
certs, config, known, port = sys.argv[1:]
nodes = NodesSettings(ssh_config=config, known_hosts=known, agent_port=int(port))
report = fleet.adopt(Settings(certs=CertsSettings(dir=certs), nodes=nodes), UI(), ["node"])
assert report.ok, report
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the earlier build."""
    known = ["git", "cat-file", "-e", f"{BEFORE}^{{commit}}"]
    if subprocess.run(known, cwd=ROOT, capture_output=True, check=False).returncode != 0:
        # CI clones all of it: there, no clone is to pass for want of a history.
        assert "CI" not in os.environ, f"{BEFORE} is not in this clone"
        pytest.skip("this clone has no history: git fetch --unshallow")
    folder = tmp_path_factory.mktemp("before")
    with (folder / "sources.tar").open("wb") as file:
        subprocess.run(["git", "archive", BEFORE], cwd=ROOT, stdout=file, check=True)
    with tarfile.open(folder / "sources.tar") as archive:
        archive.extractall(folder / "sources", filter="data")
    return folder / "sources"


@pytest.fixture(scope="module")
def adopted(node: ResidentNode, before: Path) -> ResidentNode:
    """Adopted by the earlier build, in a process of its own."""
    nodes = node.settings.nodes
    words = [node.settings.certs.dir, nodes.ssh_config, nodes.known_hosts, str(nodes.agent_port)]
    subprocess.run([sys.executable, "-c", ADOPT, *words], cwd=before, check=True)
    return node


def test_it_is_commanded_upgraded_and_released(
    adopted: ResidentNode, ui: UI, registry: Registry
) -> None:
    fleet = Fleet(adopted.settings, ui)
    earlier = digest_of(fleet)
    report = run(adopted, ui, registry, "apply")
    assert [result.status for result in report.hosts] == ["changed"], report
    assert run(adopted, ui, registry, "apply").hosts[0].status == "unchanged"
    assert fleet.run("history", ["node"]).histories["node"][0]["operation"] == "apply"
    assert digest_of(fleet) == earlier  # that was its own work, over HTTPS

    report = fleet.run("upgrade", ["node"])
    assert [result.status for result in report.hosts] == ["changed"], report
    assert digest_of(fleet) != earlier
    assert adopted.sh("ls /var/lib/moorage/resident/trial")[0] != 0  # we are answered: it stays
    assert fleet.run("upgrade", ["node"]).hosts[0].status == "unchanged"

    # What the earlier one did is known to this one, and taken back by it.
    assert run(adopted, ui, registry, "apply").hosts[0].status == "unchanged"
    assert run(adopted, ui, registry, "untrust").hosts[0].status == "changed"
    assert fleet.run("release", ["node"]).ok
    assert adopted.sh("ls /var/lib/moorage/resident")[0] != 0


def digest_of(fleet: Fleet) -> str:
    return str(fleet.run("status", ["node"]).states["node"]["resident"]["digest"])
