"""The plans this node is held to: what was last applied for each registry, without its login.

``/var/lib/moorage/plans/<registry>.json`` (0600). The resident agent puts back what drifts from
them; an untrust takes a registry's plan away. No password is ever written.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from agent.disk import write_own
from agent.faults import AgentError
from agent.ledger import Store
from agent.plan import Plan
from agent.report import FAILED, Event, ResultEvent


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
    options = replace(plan.options, preflight=False, lock_wait=0)
    return json.dumps(replace(plan, verify=None, options=options).to_json()).encode()


def drop(store: Store, registry: str) -> None:
    """Hold the node to nothing for that registry any more."""
    with contextlib.suppress(FileNotFoundError):
        _path(store, registry).unlink()


def applied(store: Store, plan: Plan, events: Iterator[Event]) -> Iterator[Event]:
    """An apply's events; where its change stays, the node is held to the plan from then on."""
    for event in events:
        if isinstance(event, ResultEvent):
            result = event.result
            if result.ok or (result.status == FAILED and result.changes):
                keep(store, plan)
        yield event


def untrusted(store: Store, plan: Plan, events: Iterator[Event]) -> Iterator[Event]:
    """An untrust's events, or an undo's; nothing is put back from before its first change on."""
    drop(store, plan.registry.name)
    yield from events


def plans(store: Store) -> tuple[Plan, ...]:
    """What the node is held to. One that cannot be read holds it to nothing."""
    found = []
    for path in sorted((store.folder / "plans").glob("*.json")):
        with contextlib.suppress(AgentError, OSError):
            found.append(Plan.parse(path.read_bytes()))
    return tuple(found)
