"""What can go wrong in a way that a person can act on: a fault, told or raised, on both sides.

A fault is formatted once, at the edge: by the agent's ``__main__``, by ``moorage.ui``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

Raised = TypeVar("Raised", bound="Failure")


@dataclass(frozen=True)
class Fault:
    """What went wrong: a stable code for programs (kebab-case), three sentences for people.

    ``message`` names what failed, ``cause`` is why; ``cure`` is what to do next, if possible the
    very command to type. ``host`` and ``path`` say where, if that is not said already: the fault of
    a :class:`~agent.wire.report.HostResult` has no host of its own.
    """

    code: str
    message: str
    cause: str = ""
    cure: str = ""
    host: str = ""
    path: str = ""

    def to_json(self) -> dict[str, str]:
        """The fields by their names; ``host`` and ``path`` only if they are known."""
        return {
            key: value for key, value in vars(self).items() if value or key not in ("host", "path")
        }


class Failure(Exception):
    """A fault that is raised."""

    def __init__(
        self,
        code: str,
        message: str,
        cause: str = "",
        cure: str = "",
        *,
        host: str = "",
        path: str = "",
    ) -> None:
        super().__init__(message)
        self.fault = Fault(code, message, cause, cure, host, path)

    @classmethod
    def of(cls: type[Raised], fault: Fault, *, host: str = "") -> Raised:
        """``fault`` to be raised; ``host`` is where it was met, if the fault does not say so."""
        return cls(
            fault.code,
            fault.message,
            cause=fault.cause,
            cure=fault.cure,
            host=fault.host or host,
            path=fault.path,
        )

    def with_cure(self, cure: str) -> None:
        """Tell another cure, such as the same command as it has to be typed here."""
        self.fault = replace(self.fault, cure=cure)

    @property
    def code(self) -> str:
        return self.fault.code

    @property
    def message(self) -> str:
        return self.fault.message

    @property
    def cause(self) -> str:
        return self.fault.cause

    @property
    def cure(self) -> str:
        return self.fault.cure

    @property
    def host(self) -> str:
        return self.fault.host

    @property
    def path(self) -> str:
        return self.fault.path


class AgentError(Failure):
    """A refusal or a failure on a node."""


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
