"""``.moorage/rotation.json``: how far the rotation of a CA has come, on disk after every deed."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.errors import SPOILT, spoilt
from moorage.files import private_folder, write_atomically
from moorage.rotation import members
from moorage.rotation.course import DONE, NODE, Member, State

if TYPE_CHECKING:
    from moorage.settings import Settings

VERSION = 1


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
    """Raises what says that it is none."""
    if document.pop("version") != VERSION:
        raise ValueError("it is of a later Moorage")
    those = tuple(Member(**one) for one in document.pop("members"))
    for one in those:
        if one.kind == NODE and one.way:
            members.target(one)
    without = frozenset(map(str, document.pop("without")))
    return State(members=those, without=without, **document)
