"""The agent as a pod of a DaemonSet: the same core, its plan from a Secret, its proof on the Node.

    python3 -I -c "…; from agent.daemonset import main; main()" trust|watch

``trust`` brings the node into the plan's state and ends when it is (an init container); ``watch``
goes on from there: a changed plan within seconds, drift within half a minute. What comes out is the
Node's annotations ``moorage.dev/agent`` and ``moorage.dev/trusted``, and its taint lifted.

The container has the node's files below ``/host``: in the grade *files* the trust folders alone, in
the grade *full* the whole tree (``hosts.py`` has the difference).
"""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Any


def main(words: list[str] | None = None) -> int:
    """The container's program. 0: done, or told to stop."""
    from agent.daemonset.loop import Loop
    from agent.daemonset.surroundings import Surroundings

    words = sys.argv[1:] if words is None else words
    if words not in (["trust"], ["watch"]):
        sys.stderr.write("usage: agent.daemonset trust|watch\n")
        return 2
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    from agent.wire.faults import Interrupted

    loop = Loop(Surroundings.from_environment())
    with contextlib.suppress(Interrupted):
        loop.trust() if words == ["trust"] else loop.watch()
    return 0


def _stop(number: int, frame: Any) -> None:
    from agent.wire.faults import Interrupted

    del frame
    # Inside an operation the core rolls back and makes it a result; the next one ends the program.
    raise Interrupted(signal.Signals(number).name)
