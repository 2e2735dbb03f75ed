"""``.moorage/rotation.json``: how far the rotation of a CA has come, on disk after every deed."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.errors import SPOILT, require_types, spoilt
from moorage.files import private_folder, write_atomically
from moorage.rotation import members
from moorage.rotation.course import (
    ABORT,
    BOTH,
    CLUSTER,
    DONE,
    MACHINE,
    NEW,
    NODE,
    OLD,
    PHASES,
    Member,
    State,
)

if TYPE_CHECKING:
    from moorage.settings import Settings

VERSION = 1
_PHASES = (*PHASES, ABORT)


def path(settings: Settings) -> Path:
    """The file; there is none while no CA is being rotated."""
    return settings.state / "rotation.json"


def read(settings: Settings) -> State | None:
    """The rotation that is under way, if one is. Raises Refused (``rotation-unreadable``)."""
    file = path(settings)
    try:
        return _state(json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except SPOILT as problem:
        cure = (
            f"put its last good copy back; or rm {shlex.quote(str(file))}, inv nodes.trust for "
            "every node, and inv certs.rotate-ca again"
        )
        raise spoilt("rotation-unreadable", file, problem, cure) from None


def write(settings: Settings, state: State) -> None:
    """Keeps the state; one that is done leaves no file. Raises OSError."""
    if state.phase == DONE:
        path(settings).unlink(missing_ok=True)
        return
    private_folder(settings.state)
    document = {"version": VERSION, **asdict(state), "without": sorted(state.without)}
    write_atomically(path(settings), f"{json.dumps(document, indent=1)}\n".encode())


def _state(document: dict[str, Any]) -> State:
    """Raises one of ``SPOILT``, which says why it is not one."""
    if document.pop("version") != VERSION:
        raise ValueError("it is of a later Moorage")
    those = tuple(_member(one) for one in _list(document.pop("members")))
    without = frozenset(map(_text, _list(document.pop("without"))))
    made = State(members=those, without=without, **document)
    require_types(made)
    _require_shown(made)
    _require(made.phase, _PHASES)
    if made.phase not in (BOTH, ABORT) and not made.new:
        raise ValueError(f"there is no new CA in its phase {made.phase}")
    if made.began:
        datetime.datetime.fromisoformat(made.began).timestamp()
    return made


def _member(document: dict[str, Any]) -> Member:
    made = Member(**document)
    require_types(made)
    _require_shown(made)
    made = replace(made, why=made.why.encode(errors="replace").decode())
    _text(made.name)
    _require(made.kind, (NODE, MACHINE, CLUSTER))
    _require(made.holds, (OLD, BOTH, NEW))
    if made.kind == NODE:
        members.target(made)
    return made


def _require_shown(made: State | Member) -> None:
    """Raises ValueError for a text that cannot be shown."""
    for one in fields(made):
        found = getattr(made, one.name)
        if isinstance(found, str) and one.name != "why":
            found.encode()


def _require(word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise ValueError(f"{word!r} is not one of {', '.join(known)}")


def _list(found: object) -> list[Any]:
    if not isinstance(found, list):
        raise TypeError(f"{found!r} is not a list")
    return found


def _text(found: object) -> str:
    """A name that can be shown."""
    if not isinstance(found, str) or not found:
        raise TypeError(f"{found!r} is not a name")
    found.encode()
    return found
