"""Once more, where only the line broke: back-off that grows, with jitter, by tenacity.

What is repeated is safe to repeat: an agent whose line broke finishes or puts back by itself, and
an apply that finds everything done does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.wire.report import HostResult
from moorage.errors import MoorageError
from moorage.fleet.errand import faults

if TYPE_CHECKING:
    from tenacity import RetryCallState

# The node may well be there: sshd had too many callers, or the network dropped the connection.
# A refused login, an unknown key or a wrong address does not get better by asking again.
TRANSIENT = frozenset(("no-ssh", "closed", "connection-lost"))
_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 15.0


def with_retries(
    work: Callable[[], HostResult],
    retries: int,
    rest: Callable[[float], None],
    tell: Callable[[str], None],
) -> HostResult:
    """``work``'s result, after up to ``retries`` further attempts where its line broke.

    ``rest`` waits so many seconds; ``tell`` hears why it is done again. Raises what ``work`` raises
    at last, unless an agent was at work before: that it cannot be reached now must not hide that it
    may have changed the node, and the broken line is the result.

    Source: https://tenacity.readthedocs.io, "wait_random_exponential"; the jitter is what
    https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter asks for.
    """
    from tenacity import (
        Retrying,
        retry_if_exception,
        retry_if_result,
        stop_after_attempt,
        wait_random_exponential,
    )

    from moorage.fleet.ssh.session import Unreachable

    def announce(state: RetryCallState) -> None:
        outcome = state.outcome
        problem = outcome.exception() if outcome is not None else None
        if problem is None and outcome is not None and outcome.result().error is not None:
            problem = outcome.result().error.message
        seconds = state.next_action.sleep if state.next_action else 0
        tell(f"{problem}; once more in {seconds:.0f} s")

    cut_off: list[HostResult] = []

    def lost(problem: BaseException) -> bool:
        # A node whose line broke may be on its way down, or up again: refused, no route, silence.
        away = bool(cut_off) and isinstance(problem, Unreachable)
        return away or (isinstance(problem, MoorageError) and problem.code in TRANSIENT)

    def broken(result: HostResult) -> bool:
        if result.error is None or result.error.code not in TRANSIENT:
            return False
        cut_off.append(result)
        return True

    def last(state: RetryCallState) -> HostResult:
        assert state.outcome is not None  # noqa: S101
        problem = state.outcome.exception()
        if cut_off and isinstance(problem, Unreachable):
            error = cut_off[-1].error
            assert error is not None  # noqa: S101
            return replace(cut_off[-1], error=faults.since(error, problem.message))
        result: HostResult = state.outcome.result()  # raises what the last attempt raised
        return result

    retrying = Retrying(
        stop=stop_after_attempt(retries + 1),
        wait=wait_random_exponential(multiplier=_FIRST_SECONDS, max=_LONGEST_SECONDS),
        retry=retry_if_exception(lost) | retry_if_result(broken),
        sleep=rest,
        before_sleep=announce,
        retry_error_callback=last,
    )
    return retrying(work)
