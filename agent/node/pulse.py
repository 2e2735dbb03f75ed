"""Says, while an operation takes long, that its process is at work: it is not hanging.

A pull may be silent for minutes. Whoever hears the pulse need not wait that long for an agent that
was stopped, or for a node that froze: see ``moorage.fleet.errand``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.node.threads import begin

SECONDS = 10.0
# Most operations are over before the first one; one that is not is a step that may take long.
FIRST_SECONDS = 0.5
LINE = b'{"event": "alive"}\n'
_RESULT = b'{"event": "result"'

Write = Callable[[bytes], None]


@contextmanager
def beside(write: Write) -> Iterator[Write]:
    """Gives what lines are to be written with for the length of a block: none breaks into another.

    ``write`` takes whole lines, and raises nothing. No pulse comes after the result.
    """
    guard = threading.Lock()
    over = threading.Event()

    def guarded(line: bytes) -> None:
        with guard:
            if line.startswith(_RESULT):
                over.set()
            write(line)

    def beat() -> None:
        pause = FIRST_SECONDS
        while not over.wait(pause):
            with guard:
                if not over.is_set():
                    write(LINE)
            pause = SECONDS

    thread = begin(beat, "pulse")
    try:
        yield guarded
    finally:
        over.set()
        thread.join()
