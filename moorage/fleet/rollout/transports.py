"""How a verb gets to a host: as an errand in an SSH session, or over HTTPS to its resident agent.

Both are one thing to what uses them, as regclient's ``scheme.API`` is over its registries and
layouts: https://pkg.go.dev/github.com/regclient/regclient/scheme
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from agent.wire.verbs import Call
    from moorage.archive import AgentArchive
    from moorage.fleet.errand.errand import Become, ErrandAnswer
    from moorage.fleet.residents.channel import Channel
    from moorage.fleet.residents.invitation import Invitation
    from moorage.fleet.rollout.plans import SentPlan
    from moorage.fleet.ssh.session import Session

Hear = Callable[[dict[str, Any]], None]
# This machine's own address on the way to a host -> the plan for it. Raises MoorageError.
Planned = Callable[[str], "SentPlan"]
# An agent that is only asked reads a few files, or runs a few short programs.
ANSWER_SECONDS = 60.0


class Transport(Protocol):
    """A way to one host that is open."""

    @property
    def local_address(self) -> str:
        """This machine's own address on the way; "" if there is none that the node could use."""

    def operate(self, call: Call, planned: Planned, hear: Hear) -> ErrandAnswer:
        """Carries ``call`` out by the plan that is ``planned`` for a host reached from there.

        ``hear`` gets the events as they come. Raises MoorageError.
        """


@dataclass(frozen=True)
class Https:
    """To a resident agent. ``by``: this machine's address in the session that it goes through."""

    channel: Channel
    by: str = ""

    @property
    def local_address(self) -> str:
        return self.by or self.channel.local_address

    def operate(self, call: Call, planned: Planned, hear: Hear) -> ErrandAnswer:
        body, patience = b"", ANSWER_SECONDS
        plan = planned(self.local_address)
        if call.verb.plan:
            body, patience = plan.body, plan.patience
        return self.channel.operate(call, body, hear, patience)


@dataclass(frozen=True)
class Errand:
    """The archive is run in an SSH session. ``flags``: how it comes and stays there.

    ``invitation``: the operator's half where the agent may stay.
    """

    session: Session
    archive: AgentArchive
    become: Become
    flags: tuple[str, ...] = ()
    invitation: Invitation | None = None

    @property
    def local_address(self) -> str:
        return self.session.local_address

    def operate(self, call: Call, planned: Planned, hear: Hear) -> ErrandAnswer:
        invitation, plan = self.invitation, planned(self.local_address)
        return self.session.errand(
            self.archive,
            (*call.words, *self.flags),
            plan.body + b"\n",
            self.become,
            hear if invitation is None else invitation.hear,
            plan.patience,
            None if invitation is None else invitation.reply,
        )
