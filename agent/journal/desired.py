"""The plans this node is held to: what was last applied for each registry, without its login.

``/var/lib/moorage/plans/<registry>.json`` (0600). The resident agent puts back what drifts from
them; an untrust takes a registry's plan away. No password is ever written; a client's key is, as
it is what has to be put back.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from agent.journal.ledger import Store
from agent.node.disk import explained, write_own
from agent.wire.faults import AgentError
from agent.wire.plan import Plan
from agent.wire.report import (
    FAILED,
    ROLLED_BACK,
    UNCHANGED,
    Event,
    HostResult,
    NoteEvent,
    ResultEvent,
)


def _path(store: Store, registry: str) -> Path:
    # A registry's name is a checked DNS name and a port: no separator, no dots alone.
    return store.folder / "plans" / f"{registry}.json"


def keep(store: Store, plan: Plan) -> None:
    """Hold the node to ``plan`` from now on; its pull and login are left out."""
    if not holds(store, plan):  # no write, and no wait for a disk, where nothing changes
        write_own(_path(store, plan.registry.name), _content(plan), 0o600)


def holds(store: Store, plan: Plan) -> bool:
    """Whether the node is held to ``plan`` already."""
    with contextlib.suppress(OSError):
        return _path(store, plan.registry.name).read_bytes() == _content(plan)
    return False


def _content(plan: Plan) -> bytes:
    # What was agreed to once is not agreed to for every repair to come.
    options = replace(plan.options, preflight=False, lock_wait=0, stop_running=False)
    return json.dumps(replace(plan, verify=None, options=options).to_json()).encode()


def drop(store: Store, registry: str) -> None:
    """Hold the node to nothing for that registry any more. Raises AgentError."""
    path = _path(store, registry)
    if path.exists():
        with explained(path):
            path.unlink()


def applied(store: Store, plan: Plan, events: Iterator[Event]) -> Iterator[Event]:
    """An apply's events; if its change stays, the node is held to the plan from then on."""
    for event in events:
        if isinstance(event, ResultEvent):
            result = event.result
            if result.ok or (result.status == FAILED and result.changes):
                try:
                    keep(store, plan)
                except AgentError as problem:  # what is done is done
                    yield NoteEvent(
                        f"an agent that stays would not put back what drifts: {problem}"
                    )
        yield event


def untrusted(
    store: Store, plan: Plan, events: Iterator[Event], *, wholly: bool = True
) -> Iterator[Event]:
    """An untrust's events, or an undo's; nothing is put back from before its first change on.

    Of one that changed nothing because it was refused, the node stays held to what it was; and of
    one that found nothing to take back, unless all trust was to go (``wholly``).
    """
    held = _held(store, plan.registry.name)
    try:
        drop(store, plan.registry.name)
    except AgentError as problem:
        yield ResultEvent(HostResult(os.uname().nodename, FAILED, error=problem.fault))
        return
    for event in events:
        stays = isinstance(event, ResultEvent) and _stays(event.result, wholly)
        if stays and held is not None:
            with contextlib.suppress(AgentError):
                write_own(_path(store, plan.registry.name), held, 0o600)
        yield event


def _stays(result: HostResult, wholly: bool) -> bool:
    """Whether all is as it was before."""
    if result.status == UNCHANGED:
        return not wholly
    return result.status in (FAILED, ROLLED_BACK) and not result.changes


def _held(store: Store, registry: str) -> bytes | None:
    try:
        return _path(store, registry).read_bytes()
    except OSError:
        return None


def plans(store: Store) -> tuple[Plan, ...]:
    """What the node is held to. One that cannot be read holds it to nothing."""
    found = []
    for path in sorted((store.folder / "plans").glob("*.json")):
        with contextlib.suppress(AgentError, OSError):
            found.append(Plan.parse(path.read_bytes()))
    return tuple(found)
