"""A real node whose clock is hours off: Debian's libfaketime before the agent, and before no other.

A container cannot set a clock of its own.
"""

from __future__ import annotations

import pytest

pytest.importorskip("docker")

from moorage.fleet.rollout.fleet import Fleet
from moorage.ui import UI
from tests.resident.lab import ResidentNode, until

pytestmark = pytest.mark.engine

DROP_INS = "/etc/systemd/system/moorage-agent.service.d"
INSTALL = "apt-get -qq update && apt-get -qqy --no-install-recommends install libfaketime 2>&1"
LIBRARY = "$(ls /usr/lib/*/faketime/libfaketime.so.1)"
PYTHON = "/usr/local/bin/python3"
FILES = "find /etc -type f | sort | xargs sha256sum"


@pytest.fixture(scope="module")
def clocked(node: ResidentNode) -> ResidentNode:
    code, said = node.sh(INSTALL)
    if code:
        pytest.skip(f"libfaketime cannot be had: {said[-200:]}")
    return node


@pytest.mark.parametrize(("offset", "where"), [("+2h", "ahead of"), ("-2h", "behind")])
def test_a_node_whose_clock_is_off_is_not_adopted(
    clocked: ResidentNode, ui: UI, offset: str, where: str
) -> None:
    before = clocked.sh(FILES)[1]
    clocked.sh(
        f"printf '#!/bin/sh\\nLD_PRELOAD=%s FAKETIME={offset} exec /usr/bin/python3 \"$@\"\\n' "
        f"{LIBRARY} > {PYTHON}; chmod 755 {PYTHON}"
    )
    try:
        report = Fleet(clocked.settings, ui).run("adopt", ["node"])
    finally:
        clocked.sh(f"rm {PYTHON}")
    fault = report.hosts[0].error
    assert fault is not None
    assert (fault.code, f"2.0 hours {where}" in fault.message) == ("clock-skew", True), fault
    assert "timedatectl" in fault.cure
    assert clocked.sh("test -e /etc/systemd/system/moorage-agent.service")[0] != 0
    assert clocked.sh(FILES)[1] == before
    assert clocked.sh("ls /var/lib/moorage")[1].split() == ["agent"]


@pytest.mark.parametrize(
    ("offset", "logged"), [("-2h", "certificate is not yet valid"), ("+400d", "has expired")]
)
def test_an_agent_whose_clock_goes_wrong_later_says_so_and_serves_once_it_is_right(
    clocked: ResidentNode, ui: UI, offset: str, logged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Fleet(clocked.settings, ui).run("adopt", ["node"]).ok
    try:
        before = clocked.sh(FILES)[1]
        clocked.sh(
            f"mkdir -p {DROP_INS}; printf '[Service]\\nEnvironment=LD_PRELOAD=%s\\n"
            f"Environment=FAKETIME={offset} FAKETIME_DONT_FAKE_MONOTONIC=1\\n' {LIBRARY} "
            f"> {DROP_INS}/test.conf; systemctl daemon-reload; systemctl restart moorage-agent"
        )
        capsys.readouterr()
        report = Fleet(clocked.settings, ui).run("status", ["node"])
        assert "resident" not in report.states.get("node", {})
        assert "timedatectl" in capsys.readouterr().err
        assert logged in clocked.sh(clocked.log)[1]
        clocked.sh(f"rm -r {DROP_INS}; systemctl daemon-reload; systemctl restart moorage-agent")
        assert clocked.sh(FILES)[1] == before
        fleet = Fleet(clocked.settings, ui)
        until(lambda: "resident" in fleet.run("status", ["node"]).states["node"], clocked)
    finally:
        clocked.sh(f"rm -rf {DROP_INS}; systemctl daemon-reload")
        assert Fleet(clocked.settings, ui).run("release", ["node"]).ok
