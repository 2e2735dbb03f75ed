"""The logins that leave this machine: nodes and Secrets get some that may pull and nothing else.

The operator's stays here. A registry of somebody else's knows no logins of Moorage's: there that of
``inv registry.login`` is handed out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.registry import service, users
from moorage.registry.credentials import Credentials, if_any

if TYPE_CHECKING:
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


def made(settings: Settings, purposes: Iterable[str]) -> dict[str, Credentials]:
    """The logins for these purposes, made where there is none, and in force; by purpose.

    Raises Refused (``no-credentials``) if the registry has no front here yet that could know them;
    MoorageError if the front does not take them.
    """
    if service.has_logins(settings) is None:
        raise _none(settings, "Secrets", f"there is no {service.etc(settings)}")
    found = {one: users.for_purpose(settings, one) for one in dict.fromkeys(purposes)}
    if not service.has_logins(settings):
        service.put_logins(settings)
    return found


def _none(settings: Settings, whom: str, cause: str) -> Refused:
    return Refused(
        "no-credentials",
        f"{settings.registry_name} has no login for {whom} yet",
        cause=cause,
        cure="inv registry.up",
    )
