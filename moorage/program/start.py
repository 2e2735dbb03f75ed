"""Starts Invoke for ``./run inv``, and for ``inv`` in the environment that ``run`` made.

A tenth of a warm command sooner than Invoke's own start, and with Moorage's answers to what Invoke
answers before it loads any task: ``--help`` and ``--version``.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invoke.program import Program


def program() -> Program:
    """Invoke's program, without what only tests of tasks need.

    ``invoke.context`` wants one name of unittest.mock, for MockContext, and asyncio comes along:
    20 ms. It gets one that fetches the real thing when it is called.
    """
    stand_in: Any = ModuleType("unittest.mock")
    stand_in.Mock = _mock
    sys.modules[stand_in.__name__] = stand_in
    try:
        from invoke.main import program
    finally:
        del sys.modules[stand_in.__name__]
    return program


def _mock(*words: Any, **options: Any) -> Any:
    from unittest.mock import Mock

    return Mock(*words, **options)


if __name__ == "__main__":
    # What is loaded stays: to look for garbage among it once takes a twentieth of a whole
    # nodes.trust. No command loads so many objects; what works for long is looked through as ever.
    gc.set_threshold(200_000)
    sys.argv[0] = "inv"
    started = program()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from moorage.program import edges

    edges.install()
    started.run()
