"""Where an agent is met: its address, and what tells nodes of one address apart: the SSH port, and
the jump host that an inventory names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from moorage.errors import MoorageError, Refused
from moorage.fleet.residents import channel
from moorage.pki.roster import NO_JUMP

if TYPE_CHECKING:
    from moorage.fleet.ssh.routes import Route
    from moorage.fleet.ssh.session import Session
    from moorage.pki.authority import Authority
    from moorage.pki.roster import Resident, Roster


def address_of(route: Route) -> str:
    """Where the agent of a node is asked straight; "" if it cannot be."""
    return route.hostname if route.direct else ""


def noted(roster: Roster, resident: Resident, route: Route, address: str) -> Resident:
    """As the roster keeps an agent that was adopted by ``route``."""
    before = roster.residents().get(route.target.host)
    former = before.jump if before is not None and before.id == resident.id else ""
    made = replace(resident, address=address, ssh_port=route.port, jump=former)
    return _by_jump(replace(made, usual_port=route.target.usual_port), route)


def met(resident: Resident, route: Route) -> Resident:
    """With the SSH port and the jump host by which it was met."""
    if resident.ssh_port != route.port:
        usual = route.target.usual_port
        resident = replace(resident, ssh_port=route.port, usual_port=usual)
    return _by_jump(resident, route)


def _by_jump(resident: Resident, route: Route) -> Resident:
    """Where the route says no jump host, what was known of it stays."""
    jump = route.target.jump or resident.jump or NO_JUMP
    return resident if jump == resident.jump else replace(resident, jump=jump)


def answers(known: Resident, route: Route, session: Session, authority: Authority) -> bool:
    """Whether this very agent is on the node of the session, by the certificate it has."""
    with contextlib.suppress(channel.NoAnswer, MoorageError):
        context = authority.context()
        line = channel.awaited(
            partial(channel.through, route.name, session.transport, known, context),
            known, channel.SETTLE_SECONDS,
        )  # fmt: skip
        with contextlib.closing(line):
            line.ask("GET", "/healthz")
            return True
    return False


def note_again(roster: Roster, known: Resident, route: Route) -> None:
    """An agent that stays already was met by ``route``, another name or port of its node."""
    host = route.target.host
    here = roster.residents().get(host)
    if here is not None and here.id == known.id and here.usual_port and not route.target.usual_port:
        return  # by the host's name alone it is found as well
    roster.put(host, noted(roster, replace(known, settling=0), route, address_of(route)))


def did_not_settle(roster: Roster, route: Route) -> None:
    """The node has said that its agent did not come up: none is there."""
    known = roster.at(route.target.host, route.port, route.target.jump)
    if known is not None and known.settling:
        roster.drop(route.target.host)


def refuse_another_nodes(
    roster: Roster,
    route: Route,
    first: Route | None = None,
    is_here: Callable[[Resident], bool] = lambda _: False,
) -> None:
    """Raises Refused (``another-nodes``) if the host's name is that of a node behind another port,
    or behind another jump host of an inventory, whose agent would be lost from the roster.

    ``first``: to the first node of that name in this run; ``is_here``: whether the agent that is
    known answers on the node of ``route`` all the same.
    """
    host, port, jump = route.target.host, route.port, route.target.jump or NO_JUMP
    known = roster.residents().get(host)
    taken, taken_jump = (known.ssh_port, known.jump) if known is not None else (0, "")
    if first is not None:
        taken, taken_jump = taken or first.port, taken_jump or first.target.jump or NO_JUMP
    if taken in (0, port) and taken_jump in ("", jump):
        return
    if known is not None and is_here(known):
        return
    if taken not in (0, port):
        there, here, key = f"behind its SSH port {taken}", f"port {port}", "Port"
    else:
        there, here, key = _behind(taken_jump), f"the one {_behind(jump)}", "ProxyJump"
    forget = ""
    if known is not None:
        forget = f"; if the other node is gone: inv nodes.forget --hosts={known.word(host)} first"
    raise Refused(
        "another-nodes",
        f"{host} is the name of the node {there}, whose agent stays",
        cause=f"an agent is known by the name of its host, and {here} is another node's",
        cure=f"give this node a name of its own in ~/.ssh/config (Host, HostName, {key}) and use "
        f"that one{forget}",
        host=route.name,
    )


def _behind(jump: str) -> str:
    if jump == NO_JUMP:
        return "for which no inventory names a jump host"
    return f"that is reached by {jump}"
