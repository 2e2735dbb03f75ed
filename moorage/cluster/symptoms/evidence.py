"""What speaks for and against a node's trust, in the order in which it happened. Pure.

A pull proves the trust of its moment and of no later one: what came after it counts, a pull that
failed for want of trust as much as an untrust of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from moorage.cluster.symptoms import causes

# What a node's trust may be known by.
AGENT, PULLED, FAILED, NOTHING = "agent", "pulled", "failed", "nothing"
UNTRUSTED, UNDONE, SET_UP = "untrusted", "undone", "set-up"

# Complaints of a runtime that lacks the trust, or the name that comes with it.
TRUST_CODES = frozenset(
    ("x509-unknown-authority", "ca-unreadable", "plain-to-https", "name-unresolved")
)


class Evidence(NamedTuple):
    """One thing that is known. ``when``: seconds since 1970 by the API server's clock; ``trusts``:
    None if it says only that what was known before counts no more."""

    when: float
    trusts: bool | None
    by: str
    words: str


class Verdict(NamedTuple):
    """``trusts``: None for unknown; ``by`` is one of the words above."""

    trusts: bool | None
    by: str
    words: str


_NOTHING = Verdict(None, NOTHING, "no agent, and no pod from this registry was seen there")


def judged(found: Iterable[Evidence], created: float = 0.0) -> Verdict:
    """What follows from the evidence: the newest decides.

    ``created``: when the Node was made; what happened before was another machine's. A trust that
    was set up and not proven puts an end to what spoke against it, and is no proof itself.
    """
    set_up: Evidence | None = None
    for one in sorted(found, key=lambda one: one.when, reverse=True):
        if one.when < created:
            break
        if one.by == SET_UP:
            set_up = set_up or one
        elif one.trusts or set_up is None:
            return Verdict(one.trusts, one.by, one.words)
        else:
            break
    return _NOTHING if set_up is None else Verdict(None, SET_UP, set_up.words)


# -- times ------------------------------------------------------------------------------------


def seconds(text: str | None) -> float:
    """RFC 3339 -> seconds since 1970; 0.0 for none."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except ValueError:
        return 0.0


def shown(when: float) -> str:
    """Seconds since 1970 as the API writes them."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node_of(event: Mapping[str, Any]) -> str:
    """The node whose kubelet reports this."""
    source = event.get("source") or {}
    return str(source.get("host") or event.get("reportingInstance") or "")


def _first(event: Mapping[str, Any]) -> float:
    return seconds(event.get("firstTimestamp") or event.get("eventTime"))


def _last(event: Mapping[str, Any]) -> float:
    series = (event.get("series") or {}).get("lastObservedTime")
    return seconds(series or event.get("lastTimestamp") or event.get("eventTime"))


class Clocks:
    """How far the API server's clock is ahead of each node's, in seconds.

    An event bears both: when its kubelet saw it, and when the server got it. What is sent late
    looks like a clock that is behind, so the least difference counts.
    """

    def __init__(self) -> None:
        self._ahead: dict[str, float] = {}

    def learn(self, event: Mapping[str, Any]) -> None:
        node, first = node_of(event), _first(event)
        made = seconds((event.get("metadata") or {}).get("creationTimestamp"))
        if node and first and made:
            ahead = made - first
            known = self._ahead.get(node)
            self._ahead[node] = ahead if known is None else min(known, ahead)

    def by_server(self, node: str, when: float) -> float:
        return when + self._ahead.get(node, 0.0)


# -- what events tell -------------------------------------------------------------------------


_QUOTED = re.compile(r'"([^"\s/]+/[^"\s]+)"')


def told(event: Mapping[str, Any], registry: str) -> tuple[float, bool, str] | None:
    """A kubelet's event -> when by its clock, whether the pull went well, and in words; None where
    it says nothing of the node's trust in ``registry``."""
    message = str(event.get("message") or "")
    images = _QUOTED.findall(message)
    if not any(causes.same_registry(causes.registry_of(one), registry) for one in images):
        return None
    about = event.get("involvedObject") or {}
    name = f"{about.get('namespace')}/{about.get('name')}"
    when = _last(event)
    if event.get("reason") == "Pulled" and message.startswith("Successfully pulled"):
        return when, True, f"{name} was pulled there"
    if event.get("type") == "Warning":
        code = causes.classify(message).code
        if code in TRUST_CODES:
            return when, False, f"{name} could not pull there: {code}"
    return None
