"""A real node that is followed: over SSH, through SSH to its agent, straight, and forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.rollout.operation import Wish
from moorage.fleet.watch import Watch
from moorage.ui import UI
from tests.resident.lab import ResidentNode

pytestmark = pytest.mark.engine


class Followed:
    """A watch in a thread, and the lines that it has told."""

    def __init__(self, node: ResidentNode, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        ui = UI()
        monkeypatch.setattr(ui, "show", self.lines.append)
        self.watch = Watch(node.settings, ui, ["node"], None, 1)
        self.kept = self.watch._nodes[0].kept
        self.thread = threading.Thread(target=self.watch.run)
        self.thread.start()

    def until(self, words: str, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not any(words in line for line in self.lines):
            assert time.monotonic() < deadline, (words, self.lines)
            time.sleep(0.1)
        self.lines.clear()


@pytest.fixture
def followed(node: ResidentNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[Followed]:
    # A node without an agent is asked every 15 seconds; a test cannot wait for each.
    monkeypatch.setattr("moorage.fleet.watch.BY_SSH_SECONDS", 2.0)
    made = Followed(node, monkeypatch)
    try:
        yield made
    finally:
        made.watch.stop()
        made.thread.join(20)
        Fleet(node.settings, UI(as_json=True)).run("release", ["node"])


def test_a_node_is_followed_by_whatever_way_leads_to_it(
    node: ResidentNode, ui: UI, followed: Followed
) -> None:
    deadline = time.monotonic() + 40
    while not followed.watch._last:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert followed.watch._last["node"].fault is None
    assert not followed.kept.by_agent
    session = followed.kept._session
    time.sleep(5)
    assert followed.kept._session is session  # one login, not one a round
    assert Fleet(node.settings, ui).run("adopt", ["node"], Wish(loopback=True)).ok
    followed.until("an agent stays here now")
    assert followed.kept.by_agent
    node.sh("systemctl stop moorage-agent")
    followed.until("no resident agent answers: it is asked over SSH")
    node.sh("systemctl start moorage-agent")
    followed.until("an agent stays here now")
    assert Fleet(node.settings, ui).run("adopt", ["node"]).ok
    followed.until("the agent's certificate was renewed")
    assert Fleet(node.settings, ui).forget(["node"]) == {"node": "released"}
    followed.until("no resident agent answers: it is asked over SSH")
