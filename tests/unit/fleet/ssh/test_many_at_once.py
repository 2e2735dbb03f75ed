"""What the sessions of a rollout share, and what each has of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import pytest

from moorage.fleet.errand import errand
from moorage.fleet.inventory import Target
from moorage.fleet.ssh import session
from moorage.fleet.ssh.keys import Offer
from moorage.fleet.ssh.routes import Route
from moorage.settings import ROOT


@pytest.fixture
def route(tmp_path: Path) -> Route:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(key)], check=True)
    return Route(
        Target("node1", "node1"), "192.0.2.1", 22, "root",
        identities=(key,), identities_given=True, agent="none",
    )  # fmt: skip


def test_connections_are_made_by_many_threads_at_once(route: Route) -> None:
    """Fabric writes into a connection's configuration while it makes it."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(16) as pool:
            made = list(pool.map(lambda _: session._chain(route), range(1000)))
    finally:
        sys.setswitchinterval(usual)
    assert len(made) == 1000


def test_a_key_is_read_once_for_all_hosts_and_again_when_it_changes(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    from_path = paramiko.PKey.from_path

    def noted(path: Path) -> object:
        read.append(path)
        return from_path(path)

    monkeypatch.setattr(paramiko.PKey, "from_path", noted)
    (first,), (second,) = (list(Offer(route)._files()) for _ in range(2))
    assert read == [*route.identities]
    assert first == second
    path = route.identities[0]
    other = path.with_name("other")
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(other)], check=True)
    other.replace(path)
    (third,) = Offer(route)._files()
    assert third[1] != first[1]


def test_a_piece_of_the_archive_is_a_packet() -> None:
    content = os.urandom(3 * errand.PIECE + 5)
    found = list(errand.pieces(content))
    assert b"".join(found) == content
    channel = paramiko.Channel(0)
    channel.out_window_size, channel.out_max_packet_size = 1 << 20, 1 << 15
    assert [channel._wait_for_send_window(len(one)) for one in found] == [*map(len, found)]
    assert channel._wait_for_send_window(errand.PIECE + 1) == errand.PIECE


def test_a_first_trust_loads_nothing_that_it_does_not_use() -> None:
    program = (
        "import sys\n"
        "import moorage.archive, moorage.fleet, moorage.fleet.rollout.fleet\n"
        "unused = {'ClusterShell', 'http.client', 'tarfile', 'zipfile', 'moorage.supply',\n"
        "          'moorage.fleet.rollout.this_machine', 'moorage.program.pages'}\n"
        "print(sorted(unused & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
