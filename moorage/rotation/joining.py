"""Who came since the rotation began, and who left: looked at again before a phase ends.

A node that is trusted meanwhile gets what is handed out then, and follows; so the old CA is not
dropped before it has the new one. One that is untrusted meanwhile is not gone to any more.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from moorage.fleet.report import logbook, trusting
from moorage.rotation import members
from moorage.rotation.course import CLUSTER, NODE, OLD, Member, State

if TYPE_CHECKING:
    from moorage.fleet.inventory import Target
    from moorage.fleet.report.trusting import HostStanding
    from moorage.rotation.members import Means


def look(means: Means, state: State, hosts: Sequence[Target] = ()) -> State:
    """The state with whoever came, by what this machine's files say, and without who left.

    ``hosts``: named by the user, to come as well. Raises Refused (``trusting-unreadable``).
    """
    settings = means.settings
    coming = trusting.being_trusted(logbook.folder(settings), settings.registry_name)
    found = members.without_clusters(means, [*hosts, *coming])
    state = left(state, members.standings(settings))
    return joined(state, [*found, *members.given_the_login(settings)])


def joined(state: State, found: Sequence[Member]) -> State:
    """The state with those of ``found`` that it does not have, each once.

    What such a one holds is not known: it is gone to as if it had the old CA alone. Pure.
    """
    known = {place for one in state.members for place in _places(one)}
    new: list[Member] = []
    for one in found:
        if not known & _places(one):
            new.append(replace(one, touched=True))
            known |= _places(one)
    return replace(state, members=(*state.members, *new))


def _places(one: Member) -> set[str]:
    """What tells it from others: its name, and the place or API server by which it is reached."""
    if one.kind == NODE:
        if not one.way:
            return {one.name}
        return {one.name, str(members.target(one).told_apart_by)}
    return {one.name, one.way} if one.way else {one.name}


def without_cluster(state: State, server: str) -> State:
    """The state without the agents of the cluster of this API server. Pure."""
    gone = {one.name for one in state.members if one.kind == CLUSTER and one.way == server}
    kept = tuple(one for one in state.members if one.name not in gone)
    return replace(state, members=kept, without=state.without - gone)


def left(state: State, standings: Mapping[str, HostStanding]) -> State:
    """The state without nodes that were untrusted since it began; one whose last change was undone
    holds what it held before. Pure."""
    since = datetime.datetime.fromisoformat(state.began).timestamp() if state.began else 0.0
    kept: list[Member] = []
    for one in state.members:
        stands = standings.get(one.name) if one.kind == NODE else None
        if stands is None or stands.last == trusting.TRUST or stands.at < since:
            kept.append(one)
        elif stands.changes:
            kept.append(replace(one, holds=OLD, proved=False, touched=True))
    return replace(state, members=tuple(kept))
