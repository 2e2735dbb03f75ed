"""What a page over a thousand nodes costs: ``python -m tests.web.thousand FOLDER``.

Prints seconds of processor time to make it, KiB of memory, and the share of a core when idle.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from moorage.web import sources
from moorage.web.history import History
from tests.unit.elsewhere import project
from tests.unit.web.test_page import Served, standing

NODES = 1000


def main(folder: Path) -> None:
    settings = project(folder)
    names = ("registry", "images", "users", "rollouts")
    asked: dict[str, Callable[[], Any]] = {
        name: partial(getattr(sources, name), settings) for name in names
    }
    # It writes into the story of the server that asks it: made after it.
    kept: list[History] = []

    def look() -> Any:
        return kept[0].look()

    asked["history"] = look
    made = Served(asked, NODES)
    kept.append(History(settings, made.server.story))
    for number in range(NODES):
        # Each of its own look, so that no two are folded: the worst there is.
        made.server.story.hear(standing(f"node{number}", runtime=f"containerd 1.6.{number}"))
    made.log_in()
    began = time.process_time()  # of this process alone: others may keep the cores busy
    text = made.shown()
    took = time.process_time() - began
    assert text.count('<th scope="row">') == NODES
    memory = int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
    deadline = time.monotonic() + 60
    while any(made.server.story.section(name, 0).seen is None for name in asked):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(16)  # the registry is looked at again: what the first look costs is no idling
    began, cores = time.monotonic(), time.process_time()
    time.sleep(20)
    idle = (time.process_time() - cores) / (time.monotonic() - began)
    print(took, memory, idle)  # noqa: T201
    made.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
