"""The logins that leave this machine: nodes and Secrets get some that may pull and nothing else.

The operator's stays here. A registry of somebody else's knows no logins of Moorage's: there that of
``inv registry.login`` is handed out.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import SPOILT, Refused, spoilt
from moorage.files import private_folder, write_atomically
from moorage.registry import service
from moorage.registry.logins import users
from moorage.registry.logins.credentials import Credentials, folder, if_any

if TYPE_CHECKING:
    from moorage.registry.front.roles import User
    from moorage.settings import Settings


def to_nodes(settings: Settings) -> Credentials | None:
    """The login that nodes pull with; None for somebody else's registry that gives without one.

    Raises Refused (``no-credentials``) until ``inv registry.up`` has made it.
    """
    if settings.registry.external:
        return if_any(settings)
    found = users.kept(settings, users.NODES)
    if found is None:
        raise _none(settings, "nodes", "there is none for nodes among the registry's logins")
    return found


def planned(settings: Settings, purpose: str) -> Credentials:
    """The login for ``purpose``; one that :func:`made` would make has no password yet."""
    return users.kept(settings, purpose) or Credentials(users.name_for(purpose), "")


def made(settings: Settings, purposes: Iterable[str], holder: str = "") -> dict[str, Credentials]:
    """The logins for these purposes, made where there is none, and in force; by purpose.

    ``holder``: the API server of the cluster that gets them; noted before it does. Raises Refused
    (``no-credentials``) if the registry has no front here yet that could know them; MoorageError if
    the front does not take them.
    """
    if service.has_logins(settings) is None:
        raise _none(settings, "Secrets", f"there is no {service.etc(settings)}")
    found = {one: users.for_purpose(settings, one) for one in dict.fromkeys(purposes)}
    if holder:
        note(settings, [one.user for one in found.values()], holder)
    if not service.has_logins(settings):
        service.put_logins(settings)
    return found


def note(settings: Settings, names: Iterable[str], holder: str) -> None:
    """Notes that a cluster holds these logins: no rotation leaves it behind."""
    before = holders(settings)
    after = {name: dict(held) for name, held in before.items()}
    for name in names:
        after.setdefault(name, {}).setdefault(holder, "")
    if after != before:
        _keep(settings, after)


def holders(settings: Settings) -> Mapping[str, Mapping[str, str]]:
    """The clusters that hold each login, by its name: API server -> the proof of the password that
    was last proven there, "" for none."""
    try:
        found = json.loads(_path(settings).read_bytes())["holders"]
        return {
            str(name): {str(k): str(v) for k, v in held.items()} for name, held in found.items()
        }
    except FileNotFoundError:
        return {}
    except SPOILT as problem:
        path = _path(settings)
        cure = (
            f"without it a rotation does not wait for other clusters: rm {shlex.quote(str(path))}"
        )
        raise spoilt("users-unreadable", path, problem, cure) from None


def proven(settings: Settings, names: Iterable[str], holder: str) -> None:
    """Notes that all that a cluster holds of these logins is their newest password."""
    newest = {one.name: one.proofs[0] for one in users.handed_out(settings)}
    after = {name: dict(held) for name, held in holders(settings).items()}
    for name in names:
        if holder in after.get(name, {}):
            after[name][holder] = newest[name]
    _keep(settings, after)


def behind(settings: Settings, user: User) -> list[str]:
    """The clusters that may still hold the password before the newest of this login."""
    held = holders(settings).get(user.name, {})
    return sorted(one for one, proof in held.items() if proof != user.proofs[0])


def let_go(settings: Settings, holder: str) -> None:
    """Forgets a cluster that is gone. Raises Refused if none of that URL got a login."""
    known = sorted({one for held in holders(settings).values() for one in held})
    if holder not in known:
        raise Refused(
            "unknown-holder",
            f"no cluster at {holder} got a login",
            cause=f"those that did: {', '.join(known) or 'none'}",
            cure="name one of these with --without",
        )
    forget(settings, holder)


def forget(settings: Settings, holder: str) -> None:
    """Holds nothing any more, if it ever did: no rotation waits for it."""
    before = holders(settings)
    after = {
        name: {one: proof for one, proof in held.items() if one != holder}
        for name, held in before.items()
    }
    if after != before:
        _keep(settings, after)


def _keep(settings: Settings, held: Mapping[str, Mapping[str, str]]) -> None:
    text = json.dumps({"version": 1, "holders": held}, indent=1, sort_keys=True)
    private_folder(_path(settings).parent)
    write_atomically(_path(settings), f"{text}\n".encode())


def _path(settings: Settings) -> Path:
    return folder(settings) / "handed.json"


def _none(settings: Settings, whom: str, cause: str) -> Refused:
    return Refused(
        "no-credentials",
        f"{settings.registry_name} has no login for {whom} yet",
        cause=cause,
        cure="inv registry.up",
    )
