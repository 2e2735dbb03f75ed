"""Which login a pull Secret gets: one that may only pull, one of a file, or somebody else's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from moorage.registry import Credentials

if TYPE_CHECKING:
    from moorage.settings import Settings


class Logins(Protocol):
    """Where the login of each Secret comes from."""

    def purpose(self, namespace: str, held: Set[str]) -> str:
        """What the login of a Secret in ``namespace`` is for, which holds ``held`` so far."""

    def planned(self, purpose: str) -> Credentials:
        """The login; makes none: one that is to come has no password."""

    def made(self, purposes: Iterable[str], server: str) -> Mapping[str, Credentials]:
        """The logins, made where there is none, and in force. Raises Refused, MoorageError.

        ``server``: the API server of the cluster that gets them.
        """


@dataclass(frozen=True)
class Given:
    """One login for all: the user's, or that for somebody else's registry."""

    login: Credentials

    def purpose(self, namespace: str, held: Set[str]) -> str:
        """Return "": all are the same."""
        del namespace, held
        return ""

    def planned(self, purpose: str) -> Credentials:
        """Return that login."""
        del purpose
        return self.login

    def made(self, purposes: Iterable[str], server: str) -> Mapping[str, Credentials]:
        """Return that login; the registry knows it."""
        del server
        return dict.fromkeys(purposes, self.login)


@dataclass(frozen=True)
class Own:
    """Pull-only logins of our registry: one for all Secrets, or one per namespace.

    ``per_namespace`` False: a Secret that holds its namespace's own login keeps that.
    """

    settings: Settings
    per_namespace: bool = False

    def purpose(self, namespace: str, held: Set[str]) -> str:
        """All Secrets, or those of this namespace."""
        from moorage.registry.logins import users

        own = users.of_namespace(namespace)
        return own if self.per_namespace or users.name_for(own) in held else users.SECRETS

    def planned(self, purpose: str) -> Credentials:
        """Return the login as it is kept."""
        from moorage.registry import handed

        return handed.planned(self.settings, purpose)

    def made(self, purposes: Iterable[str], server: str) -> Mapping[str, Credentials]:
        """Keep the logins, and return them."""
        from moorage.registry import handed

        return handed.made(self.settings, purposes, server)


def needed(settings: Settings) -> Logins | None:
    """The registry's own logins; None for somebody else's that no login is kept for here: it gives
    its images without one. Raises Refused as :func:`read` does."""
    from moorage.registry import if_any

    if settings.registry.external and if_any(settings) is None:
        return None
    return read(settings, "")


def read(settings: Settings, source: str, *, per_namespace: bool = False) -> Logins:
    """``source``: "" for the registry's own logins, ``-`` for one on standard input, else a file.

    Raises Refused if there is none, or it is something else than one line ``user:password``.
    """
    from moorage.registry import credentials
    from moorage.registry.logins import external, login

    if source:
        return Given(login.read(source))
    if per_namespace:
        external.require_own(settings, "--per-namespace")
    if settings.registry.external:
        return Given(credentials(settings))
    return Own(settings, per_namespace)
