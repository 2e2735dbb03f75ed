"""A line to one node that stays open from one question to the next.

To a resident agent it is HTTPS, straight or through an SSH session, so that a round costs no
handshake; to any other node an SSH session, in which the agent's errand is run each time.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.wire.report import HostResult
from agent.wire.verbs import Call, named
from moorage.errors import MoorageError
from moorage.fleet.errand import errand, faults
from moorage.fleet.residents import channel
from moorage.fleet.ssh import session as ssh

if TYPE_CHECKING:
    from moorage.archive import AgentArchive
    from moorage.fleet.residents.channel import Channel
    from moorage.fleet.residents.residence import Residents
    from moorage.fleet.ssh.routes import Route
    from moorage.fleet.ssh.session import Session

STATUS = Call(named("status"))
# An agent that serves at all answers within a second; the rest is for a node that swaps.
PATIENCE = 20.0


@dataclass(frozen=True)
class WatchMeans:
    """What the lines to all nodes share.

    ``words``: the errand of a node without a resident agent. ``logins`` bounds those at one time.
    """

    archive: AgentArchive
    words: tuple[str, ...]
    logins: threading.BoundedSemaphore
    sudo_password: str | None = field(default=None, repr=False)


class _Broken(Exception):
    """The line is of no use any more."""


class Kept:
    """Not for two threads at once."""

    def __init__(self, route: Route, means: WatchMeans) -> None:
        self.route = route
        self._means = means
        self._channel: Channel | None = None
        self._session: Session | None = None
        self._open = contextlib.ExitStack()
        self._id: str | None = None

    @property
    def by_agent(self) -> bool:
        """Whether a resident agent answers; else each question starts a program on the node."""
        return self._channel is not None

    def ask(self, residents: Residents) -> tuple[HostResult, list[dict[str, Any]]]:
        """The node's result and events; a line that was closed meanwhile is opened anew.

        ``residents`` may be others than the last time: the node was adopted, released or forgotten.
        Raises MoorageError if the node cannot be asked.
        """
        resident = residents.of(self.route)
        if self._id == (resident.id if resident else None) and (self._channel or self._session):
            with contextlib.suppress(_Broken):
                return self._asked(residents)
        self.close()
        self._id = resident.id if resident else None
        self._connect(residents)
        try:
            return self._asked(residents)
        except _Broken:
            self.close()
            raise MoorageError.of(
                faults.connection_lost(begun=False), host=self.route.name
            ) from None
        except MoorageError:
            self.close()
            raise

    def close(self) -> None:
        """Ends the line; the next question opens another."""
        with contextlib.suppress(Exception):  # a line that is dead may say so in any way
            self._open.close()
        self._open = contextlib.ExitStack()
        self._channel = self._session = None

    def _connect(self, residents: Residents) -> None:
        self._hold(residents.open(self.route))
        if self._channel is None:
            with self._means.logins:
                self._session = self._open.enter_context(ssh.connect(self.route))

    def _hold(self, found: Channel | None) -> None:
        if found is not None:
            self._channel = self._open.enter_context(contextlib.closing(found))

    def _asked(self, residents: Residents) -> tuple[HostResult, list[dict[str, Any]]]:
        if self._channel is None and self._session is not None:
            # The port is closed, or the agent was down: it costs nothing to look again.
            self._hold(residents.open(self.route, self._session))
        events: list[dict[str, Any]] = []
        means, route = self._means, self.route
        try:
            if self._channel is not None:
                answer = self._channel.operate(STATUS, b"", events.append, PATIENCE)
            elif self._session is not None:
                become = errand.Become(route.user != "root", means.sudo_password)
                answer = self._session.errand(
                    means.archive, means.words, b"", become, events.append, PATIENCE
                )
            else:
                raise _Broken
        except (channel.NoAnswer, OSError, EOFError):
            raise _Broken from None
        if answer.status == -1 and answer.result is None:
            raise _Broken
        if self._channel is not None:
            residents.renew(route, self._channel)
        return errand.host_result(route.name, answer, route.user), events
