"""How the engine reports what was done, what would be, and what could not be put back. Pure."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from agent.edit.change import Change
from agent.engine import restarts
from agent.engine.survey import Before
from agent.journal.record import Record
from agent.journal.transaction import Restored
from agent.node.disk import WRITE_CODES
from agent.wire.faults import AgentError
from agent.wire.report import ChangeEvent


def record(done: Record, undone: Mapping[int | None, int]) -> dict[str, Any]:
    """A finished transaction as `history` reports it."""
    return {
        "number": done.number,
        "time": done.time,
        "operation": done.operation,
        "registry": done.registry,
        "by": done.by,
        "from": done.origin,
        "agent": done.agent,
        "changes": [{"path": one.path, "action": one.action} for one in done.changes],
        "restarts": list(done.starts),
        "undone_by": undone.get(done.number),
    }


def stopped_by(unit: str, before: Before) -> tuple[str, ...]:
    """What a restart stops beside a service, in words; what several stop, the first one's."""
    first = next(iter(before.starts), "")
    return restarts.words(before.foreseen) if unit == first else ()


def change_event(one: Change) -> ChangeEvent:
    return ChangeEvent(path=one.path, action=one.action, diff=_diff(one))


_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)


def without_keys(path: str, content: bytes) -> bytes:
    """A file's bytes to be shown: of a private key its SHA-256 alone; of a ``*.key`` no other."""
    if path.endswith(".key"):
        return _digested(content) + b"\n" if content else content
    return _KEY.sub(lambda found: _digested(found[0]), content)


def _digested(key: bytes) -> bytes:
    return f"(a private key, SHA-256 {hashlib.sha256(key).hexdigest()})".encode("ascii")


def _diff(one: Change) -> str:
    before, after = (
        without_keys(one.path, content or b"").decode("utf-8", "replace").splitlines(keepends=True)
        for content in (one.before, one.after)
    )
    lines = difflib.unified_diff(
        before,
        after,
        one.path if one.before is not None else "/dev/null",
        one.path if one.after is not None else "/dev/null",
    )
    ended = (
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
    return "".join(ended)


def rolled_back(restored: Restored) -> str:
    paths = ", ".join(one.path for one in restored.files)
    words = f"put back {paths}" if paths else "no file had changed"
    if restored.foreign:
        words += f"; left alone, since someone else changed them: {', '.join(restored.foreign)}"
    if restored.restarts:
        words += f"; restarted {', '.join(restored.restarts)}"
    return words


def not_put_back(
    problem: BaseException, second: AgentError | OSError, touched: list[str]
) -> AgentError:
    """Return the error for a change that failed, and whose rollback failed as well."""
    if isinstance(second, AgentError) and second.code in WRITE_CODES:
        return still_half_way(f"{problem}; the change", second)
    return AgentError(
        "rollback-failed",
        f"{problem}; and putting it back failed: {second}",
        cause=f"not all of these are as they were: {', '.join(touched)}",
        cure="mend what the message says, then: nodes.recover",
    )


def still_half_way(what: str, problem: AgentError) -> AgentError:
    """Return the error for a rollback that waits until a file can be written again."""
    cure = problem.cure.replace(", then run again", "")
    return AgentError(
        problem.code,
        f"{what} is not put back yet: {problem.message}",
        problem.cause,
        cure=f"{cure}, then: inv nodes.recover (any other run puts it back first as well)",
    )
