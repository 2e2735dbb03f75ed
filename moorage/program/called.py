"""Which task a run is at, by the name that Invoke read: options may stand before it, and several
tasks in one command."""

from __future__ import annotations

import functools
from typing import Any

from invoke.tasks import Call

_name = ""


def task() -> str:
    """The name of the task that was begun last, as it was typed; "" before the first."""
    return _name


def install() -> None:
    """Wraps what Invoke does right before a task: it knows the name by then."""
    make_context = Call.make_context

    @functools.wraps(make_context)
    def named(self: Call, config: Any) -> Any:
        global _name  # noqa: PLW0603 - one task runs at a time
        _name = self.called_as or self.task.name
        return make_context(self, config)

    Call.make_context = named  # type: ignore[method-assign]
