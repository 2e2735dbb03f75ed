"""A service restarted: minding systemd's patience, and one that does not stop when told to.

``systemctl`` is stood in for by what it was asked; tests/agent/test_real.py has the real one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.node import host as hosts
from agent.node.host import Done, Host
from agent.wire.faults import AgentError


class Asked(Host):
    """Stands in for a node with systemd: keeps what is run.

    ``hangs``, ``fails``: that many restarts do, one after another.
    """

    def __init__(self, hangs: int = 0, shown: str = "", fails: int = 0) -> None:
        super().__init__("/")
        self.words: list[str] = []
        self.hangs = hangs
        self.fails = fails
        self.shown = shown

    def run(self, argv: list[str], timeout: float = 20, *, brief: bool = False) -> Done:
        self.words.append(" ".join(argv[1:]))
        if argv[1] == "restart" and self.hangs:
            self.hangs -= 1
            raise AgentError("command-timeout", "it did not end")
        if argv[1] == "restart" and self.fails:
            self.fails -= 1
            return Done(1, "", "Job for containerd.service failed.")
        return Done(0, self.shown if argv[1] == "show" else "", "")


def test_the_start_counter_is_reset_before_a_restart() -> None:
    """Six starts in ten seconds, a colleague's among them, would leave the service down."""
    host = Asked()
    host.restart("containerd.service")
    assert host.words[-2:] == ["reset-failed containerd.service", "restart containerd.service"]


def test_a_service_that_does_not_start_is_not_tried_again() -> None:
    host = Asked(fails=1)
    with pytest.raises(AgentError) as problem:
        host.restart_current("containerd.service")
    assert problem.value.code == "restart-failed"
    assert host.words == ["reset-failed containerd.service", "restart containerd.service"]


@pytest.mark.parametrize(
    ("files", "known", "stale", "reads"),
    [
        (["a.conf"], "", "no", True),  # before systemd 257 its first drop-in goes unnoticed
        (["a.conf", "b.conf"], "a.conf", "no", True),
        (["a.conf"], "a.conf", "no", False),
        (["a.conf", "notes"], "a.conf", "no", False),
        (["a.conf"], "a.conf", "yes", True),
        ([], "", "yes", True),
        ([], "", "no", False),
    ],
)
def test_systemd_reads_a_unit_again_where_it_does_not_know_its_drop_ins(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    files: list[str],
    known: str,
    stale: str,
    reads: bool,
) -> None:
    monkeypatch.setattr(hosts, "DROP_INS", str(tmp_path))
    folder = tmp_path / "containerd.service.d"
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    paths = f"/run/x.conf {folder / known}" if known else "/run/x.conf"
    host = Asked(shown=f"NeedDaemonReload={stale}\nDropInPaths={paths}\n")
    host.restart("containerd.service")
    assert ("daemon-reload" in host.words) is reads


def test_systemd_is_not_asked_again_what_it_has_told() -> None:
    host = Asked()
    host.restart_current("containerd.service")
    assert host.words == ["reset-failed containerd.service", "restart containerd.service"]


def test_one_that_does_not_stop_is_killed_alone_and_started_again() -> None:
    host = Asked(hangs=1)
    host.restart("containerd.service")
    assert host.words[-3:] == [
        "restart containerd.service",
        "kill --kill-who=main --signal=KILL containerd.service",
        "restart containerd.service",
    ]


def test_one_that_hangs_for_good_is_an_error() -> None:
    with pytest.raises(AgentError) as problem:
        Asked(hangs=2).restart("containerd.service")
    assert problem.value.code == "command-timeout"


def test_at_boot_a_restart_is_not_waited_for() -> None:
    host = Asked()
    host.restart_later("containerd.service")
    assert host.words == ["--no-block restart containerd.service"]
