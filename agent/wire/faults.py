"""The one exception of the agent: something went wrong that a person can act on.

It carries what ``report.Fault`` carries; it is formatted once, at the edge (``__main__``).
"""

from __future__ import annotations

from agent.wire.report import Fault


class AgentError(Exception):
    """A refusal or a failure with a stable code, its cause and what to do next."""

    def __init__(self, code: str, message: str, cause: str = "", cure: str = "") -> None:
        super().__init__(message)
        self.fault = Fault(code=code, message=message, cause=cause, cure=cure)

    @property
    def code(self) -> str:
        return self.fault.code


class TrustError(AgentError):
    """The node does not trust the registry, or its runtime does not serve: reason to roll back."""


class RefusedError(AgentError):
    """A state that is not understood, or not ours to change: nothing was touched."""


class PlanError(AgentError):
    """The plan is not one this agent can carry out; nothing was looked at or touched."""


class NotAtOnceError(Exception):
    """What was asked takes a program of the node's, or long to think about; nothing is wrong."""


class Interrupted(BaseException):
    """A signal asked the agent to stop; what is under way is rolled back."""
