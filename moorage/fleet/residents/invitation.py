"""The operator's half of an adoption: a node's request is signed, or the node is told no."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from moorage.errors import MoorageError
from moorage.fleet.residents import places
from moorage.pki import authority as authorities
from moorage.pki.roster import Resident, Roster

if TYPE_CHECKING:
    from moorage.fleet.ssh.routes import Route
    from moorage.fleet.ssh.session import Session
    from moorage.pki.authority import Authority


class Invitation:
    """The operator's half of an adoption that is the end of an apply."""

    def __init__(
        self,
        authority: Authority,
        roster: Roster,
        route: Route,
        session: Session,
        port: int,
        tell: Callable[[dict[str, Any]], None],
        neighbour: Callable[[str], str],
        first: Route | None = None,
    ) -> None:
        self._authority = authority
        self._roster = roster
        self._route = route
        self._session = session
        self._port = port
        self._tell = tell
        self._neighbour = neighbour
        self._first = first
        self._resident: Resident | None = None
        self._asked = ""

    def reply(self, event: dict[str, Any]) -> bytes | None:
        """The agent's wish to stay is answered; an empty line is no, and people are told why."""
        if event["event"] != "request":
            return None
        host = self._route.target.host
        if theirs := self._neighbour(str(event.get("id"))):
            words = "the agent of the profile {} stays on this node, and keeps this trust too"
            self._tell({"event": "note", "message": words.format(theirs)})
            return b"\n"
        if (known := self._under_another_name(str(event.get("id")))) is not None:
            places.note_again(self._roster, known, self._route)
            return b"\n"
        try:
            places.refuse_another_nodes(
                self._roster, self._route, self._first, partial(self._is_here, str(event.get("id")))
            )
            identity = self._roster.identity(host, str(event.get("id")))
            document, resident = granted(self._authority, identity, event, self._port)
            address = places.address_of(self._route)
            self._resident = places.noted(self._roster, resident, self._route, address)
            self._asked = str(event.get("id"))
        except MoorageError as problem:
            self._tell({"event": "note", "message": not_here(problem.fault.to_json())})
            return b"\n"
        return document + b"\n"

    def _under_another_name(self, identity: str) -> Resident | None:
        """The agent of this very node, if it stays already and answers in this session.

        A node has many names: its own, its address in a cluster, an alias of OpenSSH, and its sshd
        may have two ports.
        """
        known = self._roster.known_as(identity)
        own = self._roster.at(self._route.target.host, self._route.port, self._route.target.jump)
        if known is None or (own is not None and own.id == identity):
            return None
        return known if self._is_here(identity, known) else None

    def _is_here(self, asked: str, known: Resident) -> bool:
        same = known.id == asked
        return same and places.answers(known, self._route, self._session, self._authority)

    def hear(self, event: dict[str, Any]) -> None:
        """What became of it."""
        if event["event"] == "stays":
            fault = event["error"]
            if fault is not None:
                places.did_not_settle(self._roster, self._route)
                self._tell({"event": "note", "message": not_here(fault)})
            elif self._resident is not None:
                now = int(time.time()) if event.get("settling") else 0
                resident = replace(self._resident, settling=now)
                self._roster.put(self._route.target.host, resident, instead_of=self._asked)
        self._tell(event)


def not_here(fault: Mapping[str, Any]) -> str:
    message, cause, cure = (str(fault[name]) for name in ("message", "cause", "cure"))
    return f"the agent does not stay here: {message} ({cause}). {cure}"


def granted(
    authority: Authority,
    identity: str,
    asked: dict[str, Any],
    port: int,
    *,
    loopback: bool = False,
) -> tuple[bytes, Resident]:
    """A node's request -> its adoption, and what the roster keeps of it. Raises MoorageError.

    The operator alone decides who it is (``identity``).
    """
    try:
        apart = int(asked["time"]) - time.time()
        if abs(apart) > authorities.CLOCK_SECONDS:
            raise _clock(apart)
        made = authority.sign(str(asked["request"]), identity)
    except (ValueError, TypeError, KeyError) as problem:
        raise _bad_request(str(problem)) from None
    document = {
        "id": identity,
        "listen": "127.0.0.1" if loopback else "0.0.0.0",  # noqa: S104 - TLS guards it
        "port": port,
        "until": made.until,
        "certificate": made.pem,
        "authority": authority.pem,
    }
    return json.dumps(document).encode(), Resident(identity, port, made.serial, made.until)


def _clock(apart: float) -> MoorageError:
    where = "ahead of" if apart > 0 else "behind"
    return MoorageError(
        "clock-skew",
        f"the node's clock is {abs(apart) / 3600:.1f} hours {where} this machine's",
        cause="certificates would be not yet valid, or ended, on one of the two sides",
        cure="set the clock (timedatectl set-ntp true), then run this again",
    )


def _bad_request(why: str) -> MoorageError:
    return MoorageError(
        "bad-request",
        f"what the node asked to have signed cannot be signed: {why}",
        cause="its openssl is broken, or something else answered",
        cure="run it again; if it comes back, look at openssl on the node",
    )
