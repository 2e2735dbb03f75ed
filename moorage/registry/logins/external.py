"""A registry that somebody else runs: what cannot be done with it, and what helps in its place.

What only a registry of our own can do is refused in one sentence, and a cure that would need such a
registry is replaced. Its CA is :attr:`moorage.settings.Settings.ca_file`, its login is kept by
:mod:`moorage.registry.logins.credentials`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from moorage.errors import MoorageError, Refused

if TYPE_CHECKING:
    from moorage.settings import Settings

# What replaces a CA that ends: of a registry of our own, and of somebody else's.
NEXT_CA = "inv certs.rotate-ca, then inv nodes.trust"
_NEXT_CA_FETCHED = (
    "ask whoever runs the registry for the CA that follows; then inv registry.ca --fetch and "
    "inv nodes.trust"
)
_NEXT_CA_IN_FILE = (
    "ask whoever runs the registry for the CA that follows; then put it into the file of "
    "registry.ca, and inv nodes.trust"
)
# What gives a registry of somebody else's a login here.
LOGIN = "inv registry.login --credentials=FILE, with one line user:password"
_CA = "inv registry.ca --fetch shows the certificates that it presents"
_IMAGE = "name an image that it has: --image=REGISTRY/PROJECT/NAME:TAG"
# What makes or changes a registry of our own, wherever a cure names it.
_OWN = re.compile(
    r"\binv up(keep)?\b|\bregistry\.(up|down|logs|collect|verify|restore|backup)\b"
    r"|\bcerts\.(issue|renew|rotate-ca|show)\b|\bimage\.(build|push)\b|\b(users|images)\.\w"
)
# What helps in its place, by error code; whoever runs the registry does the rest.
_CURES = {
    "no-certificates": _CA,
    "registry-certificate": _CA,
    "x509-unknown-authority": f"{_CA}; once they are stored: inv nodes.trust",
    "no-credentials": LOGIN,
    "registry-refuses": LOGIN,
    "login-refused": f"{LOGIN}; then that user's rights in the registry",
    "image-missing": _IMAGE,
}
_Error = TypeVar("_Error", bound=MoorageError)


def require_own(settings: Settings, what: str) -> None:
    """Raises Refused (``registry-external``) if the registry is not one that Moorage runs.

    ``what``: the command or the deed, as the sentence's subject.
    """
    if not settings.registry.external:
        return
    raise Refused(
        "registry-external",
        f"{what} is for a registry that Moorage runs, and {settings.registry_name} is not one",
        cause="registry.external is true in the settings: somebody else runs that registry",
        cure="inv registry.ca --fetch, inv registry.login and inv nodes.trust are for such a one; "
        "for a registry of your own set registry.external: false",
    )


def require_external(settings: Settings, what: str) -> None:
    """Raises Refused (``registry-own``) unless somebody else runs the registry."""
    if settings.registry.external:
        return
    raise Refused(
        "registry-own",
        f"{what} is for a registry that somebody else runs",
        cause="registry.external is false, so Moorage makes the CA and the login itself",
        cure="set registry.host and registry.external: true in invoke.yaml",
    )


def next_ca(settings: Settings) -> str:
    """What replaces a CA that ends, on the nodes too. Pure."""
    if not settings.registry.external:
        return NEXT_CA
    return _NEXT_CA_IN_FILE if settings.registry.ca else _NEXT_CA_FETCHED


def needs_own(words: str) -> bool:
    """Whether a cure names a command for a registry that Moorage runs. Pure."""
    return _OWN.search(words) is not None


def cure(settings: Settings, code: str, words: str) -> str:
    """``words``, or what helps in their place if they need a registry of our own. Pure."""
    if not settings.registry.external or not needs_own(words):
        return words
    if NEXT_CA in words:
        return words.replace(NEXT_CA, next_ca(settings))
    return _CURES.get(code, f"ask whoever runs {settings.registry_name}")


def advised(settings: Settings, problem: _Error) -> _Error:
    """The same error with a cure that can work."""
    problem.with_cure(cure(settings, problem.code, problem.cure))
    return problem
