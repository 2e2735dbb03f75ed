"""The rotation of the registry's CA, begun, gone on with, given up, and shown."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from moorage.errors import MoorageError, Refused
from moorage.fleet.report import announcement
from moorage.pki import certificates, succession
from moorage.registry import served, service
from moorage.rotation import addresses, course, joining, kept, members, proving, telling
from moorage.rotation.course import Member, MemberOutcome, RotationStep, State

if TYPE_CHECKING:
    from moorage.fleet.inventory import Target
    from moorage.rotation.members import Means
    from moorage.settings import Settings

GO_ON = "inv certs.rotate-ca --resume"


class Doing(Protocol):
    """What the deeds of this machine's own do, and what visits members."""

    def make(self) -> succession.Heir: ...
    def serve(self) -> None: ...
    def narrow(self) -> None: ...
    def withdraw(self) -> None: ...
    def visit(self, deed: str, members: Sequence[Member]) -> Mapping[str, MemberOutcome]: ...
    def look(self, state: State) -> State: ...


@dataclass(frozen=True)
class Deeds:
    """The real ones. Each may be done again after a death in the middle of it."""

    means: Means

    @property
    def settings(self) -> Settings:
        return self.means.settings

    def make(self) -> succession.Heir:
        """The new CA, handed out from now on beside the old one by whatever hands one out."""
        return succession.make(self.settings, addresses.of_registry(self.settings))

    def visit(self, deed: str, members_: Sequence[Member]) -> Mapping[str, MemberOutcome]:
        """A pull under the new CA is one by the login that the front sends on to it."""
        if deed != course.PULL:
            return members.visit(self.means, deed, members_, "")
        with proving.shown(self.settings) as password:
            return members.visit(self.means, deed, members_, password)

    def look(self, state: State) -> State:
        """With whoever came since, and without who left."""
        return joining.look(self.means, state)

    def serve(self) -> None:
        """The new CA's leaf from the next handshake on. Raises MoorageError if it is not shown."""
        proving.end(self.settings)
        fingerprint = succession.switch(self.settings)
        service.put_pair(self.settings)
        shown = served.certificate(self.settings).fingerprint
        if shown != fingerprint:
            raise MoorageError(
                "certificate-not-served",
                f"https://{self.settings.registry_name} still shows another certificate",
                cause=f"its SHA-256 is {shown}",
                cure=f"inv registry.up, then {GO_ON}",
            )

    def narrow(self) -> None:
        """The old CA is handed out no more."""
        proving.end(self.settings)
        succession.narrow(self.settings)
        service.put_pair(self.settings)

    def withdraw(self) -> None:
        """The new CA is handed out no more; a front that is down has only ever had the old leaf."""
        proving.end(self.settings)
        succession.withdraw(self.settings)
        with contextlib.suppress(MoorageError):
            service.put_nameless(self.settings)


def begin(means: Means, hosts: Sequence[Target], without: Sequence[str]) -> State:
    """A new rotation, noted and not yet begun. Raises Refused."""
    refuse_under_way(means.settings)
    succession.require_ours(means.settings)
    proving.require_front(means.settings)
    now = datetime.datetime.now(datetime.UTC)
    state = State(members=members.found(means, hosts), began=now.isoformat(timespec="seconds"))
    return let_go(state, without)


def resumed(means: Means, hosts: Sequence[Target], without: Sequence[str]) -> State:
    """The rotation that is under way, with whoever came since. ``hosts``: to come as well.

    Raises Refused, or MoorageError if a cluster that was named does not answer.
    """
    state = joining.look(means, under_way(means.settings), hosts)
    return let_go(joining.joined(state, members.found(means, hosts)), without)


def let_go(state: State, names: Sequence[str]) -> State:
    """The same without waiting for these members. Raises Refused (``no-such-member``)."""
    known = {one.name for one in state.members}
    for name in names:
        if name not in known:
            raise Refused(
                "no-such-member",
                f"{name!r} does not take part in the rotation",
                cause=f"those that do are {', '.join(sorted(known)) or 'none'}",
                cure="inv certs.rotate-ca --status",
            )
    return replace(state, without=state.without | set(names))


def let_cluster_go(settings: Settings, server: str) -> None:
    """The rotation that is under way, if one is, without the agents of a cluster that are gone for
    sure: they were taken away, or the cluster was. ``server``: the URL of its API server.

    Not by what is noted of logins: a cluster that a rotation of passwords was told not to wait for
    may be reached by another context, with agents that hold the old CA alone.
    """
    with contextlib.suppress(Refused):  # whoever goes on with a spoilt one is told
        state = kept.read(settings)
        after = state and joining.without_cluster(state, server)
        if after is not None and after != state:
            kept.write(settings, after)


def under_way(settings: Settings) -> State:
    """The rotation that is under way. Raises Refused (``no-rotation``)."""
    state = kept.read(settings)
    if state is None:
        raise Refused(
            "no-rotation",
            "no rotation of the CA is under way",
            cause=f"there is no {kept.path(settings)}: the last one has ended, or none was begun",
            cure="inv certs.rotate-ca begins one",
        )
    return state


def refuse_under_way(settings: Settings) -> None:
    """Raises Refused (``rotation-under-way``) while a CA is being rotated."""
    state = kept.read(settings)
    if state is not None:
        raise Refused(
            "rotation-under-way",
            f"a rotation of the CA is under way (phase: {state.phase})",
            cause=f"it was begun at {state.began} and is not finished",
            cure=f"{GO_ON} goes on with it; --status shows it, --abort ends it until the switch",
        )


def refuse_if_trusted(settings: Settings, *, at_once: bool) -> None:
    """Raises Refused (``ca-in-use``) if nodes trust the present CA, which is in order.

    ``at_once``: they shall be cut off.
    """
    try:
        succession.require_ours(settings)
    except Refused:  # there is none, or none that could be followed by another
        return
    nodes = [one.name for one in members.trusting(settings)]
    if nodes and not at_once:
        raise Refused(
            "ca-in-use",
            f"nodes trust the present CA, and could no longer pull: {announcement.named(nodes)}",
            cause="a CA that is replaced at once is unknown to every node until nodes.trust",
            cure="inv certs.rotate-ca, by which no pull fails; --at-once does it all the same",
        )


def go(means: Means, state: State) -> State:
    """Does what can be done now, and keeps the state as it goes (:func:`carry_on`)."""
    return carry_on(
        state,
        Deeds(means),
        partial(kept.write, means.settings),
        lambda step: means.ui.note(telling.step(step)),
    )


def give_up(state: State) -> State:
    """On the way back. Raises Refused (``rotation-switched``) after the switch."""
    if not state.may_abort:
        raise Refused(
            "rotation-switched",
            "the registry serves a certificate of the new CA already, or may do so",
            cause="nodes that were reached trust both CAs; taking the new one away would end pulls",
            cure=f"{GO_ON} ends the rotation; another one brings yet another CA",
        )
    return course.aborted(state)


def carry_on(
    state: State,
    doing: Doing,
    keep: Callable[[State], None],
    tell: Callable[[RotationStep], None] = lambda _: None,
) -> State:
    """Does what can be done now; each member is gone to once per deed.

    ``keep`` gets the state before and after each deed. Before a phase ends, it is looked again who
    takes part. What is returned is done, or has to wait
    (:func:`moorage.rotation.course.blockers`). Raises what the deeds raise; what is kept is right.
    """
    tried: set[tuple[str, str]] = set()
    keep(state)
    while True:
        step = course.next_step(state, frozenset(tried))
        if step is None or step.deed in (course.NARROW, course.FINISH):
            now = doing.look(state)
            if now != state:
                state = now
                keep(state)
                continue
        if step is None:
            after = course.advance(state)
            if after == state:
                return state
            state = after
        else:
            state = course.begun(state, step)
            keep(state)
            tell(step)
            state = _did(state, step, doing)
            tried |= {(step.deed, name) for name in step.members}
        keep(state)


def _did(state: State, step: RotationStep, doing: Doing) -> State:
    if step.deed == course.MAKE:
        heir = doing.make()
        return course.made(state, heir.fingerprint, bridged=heir.bridged)
    if step.members:
        visited = [one for one in state.members if one.name in step.members]
        return course.done(state, step, doing.visit(step.deed, visited))
    own = {course.SERVE: doing.serve, course.NARROW: doing.narrow, course.WITHDRAW: doing.withdraw}
    own.get(step.deed, lambda: None)()
    return course.done(state, step)


def to_json(settings: Settings, state: State) -> dict[str, Any]:
    """The state for ``--json``; ``cas``: SHA-256 of those that are handed out."""
    return {
        "phase": state.phase,
        "began": state.began,
        "new_ca": state.new or None,
        "cas": _cas(settings),
        "members": [
            {
                "name": one.name,
                "kind": one.kind,
                "holds": one.holds,
                "proved": one.proved,
                "absent": one.absent,
                "waited_for": one.name not in state.without,
                "why": one.why,
            }
            for one in state.members
        ],
        "waits_for": [one.name for one in course.blockers(state)],
    }


def _cas(settings: Settings) -> list[str]:
    from moorage.pki import registry as pki

    found = certificates.load_certificates(pki.ca_pem(settings).encode("ascii"))
    return [certificates.facts(one).fingerprint for one in found]
