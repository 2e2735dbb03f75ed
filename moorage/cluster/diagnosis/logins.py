"""Which logins our registry takes, and what it gives them: asked, if its words leave that open.

No other registry is asked: a login leaves this machine for the server it is for alone, over the TLS
that is verified by our own CA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING

from moorage import references
from moorage.cluster.diagnosis import diagnosis
from moorage.cluster.diagnosis.known import Secret
from moorage.cluster.login import pull_secret
from moorage.cluster.login.pull_secret import Login
from moorage.cluster.symptoms import causes
from moorage.cluster.symptoms.stuck import Stuck
from moorage.errors import MoorageError

if TYPE_CHECKING:
    from moorage.registry import Credentials
    from moorage.registry.front.roles import User
    from moorage.settings import Settings

# What pods name, by namespace and name.
Held = Mapping[tuple[str, str], Secret]
# A registry slows down a caller with many wrong logins; so many Secrets for one are unusual.
_MOST = 5


def own(settings: Settings) -> Credentials | None:
    """The login that is kept here; None if there is none that can be read."""
    from moorage.registry import credentials

    try:
        return credentials(settings)
    except MoorageError:
        return None


def takes(settings: Settings, login: Credentials | None) -> bool | None:
    """Whether the registry takes it right now; None if that is unknown."""
    from moorage.registry import client

    if login is None:
        return None
    try:
        status = client.ask(settings, "/v2/", login=login).status
    except MoorageError:
        return None
    return {200: True, 401: False}.get(status)


def accepted(
    settings: Settings,
    unsure: Sequence[Stuck],
    secrets: Held,
    kept: Credentials | None,
    *,
    works: bool | None,
) -> frozenset[Login]:
    """The logins for our registry in these Secrets that it takes, without ``kept``.

    Those that are kept here need not be tried if the registry ``works``.
    """
    from moorage.registry import Credentials

    found: dict[Login, None] = {}
    for one in unsure:
        if causes.same_registry(causes.registry_of(one.image), settings.registry_name):
            found |= dict.fromkeys(_fitting(one, secrets))
    if kept is not None:
        found.pop(Login(kept.user, kept.password), None)
    known = {login for login in found if works and _is_known(settings, login)}
    tried = [login for login in found if login not in known and ":" not in login.user]
    return frozenset(known).union(
        login for login in tried[:_MOST] if takes(settings, Credentials(login.user, login.password))
    )


def pulls(
    settings: Settings, unsure: Sequence[Stuck], secrets: Held, good: Set[Login]
) -> frozenset[tuple[Login, str]]:
    """To which of these ``good`` logins our registry gives the image, or says that there is none.

    Asked if a kubelet's words do not tell: it sends no login while it may not read the Secret yet.
    """
    asked: dict[tuple[Login, str], None] = {}
    for one in unsure:
        if diagnosis.wants_rights(one, settings.registry_name):
            fitting = [login for login in _fitting(one, secrets) if login in good]
            asked |= dict.fromkeys((login, one.image) for login in fitting)
    return frozenset(pair for pair in list(asked)[:_MOST] if _gives(settings, *pair))


def users(settings: Settings) -> tuple[User, ...]:
    """The logins beside the operator's; none for somebody else's registry."""
    from moorage.registry.logins import users as listed

    try:
        return () if settings.registry.external else listed.read(settings)
    except MoorageError:
        return ()


def _fitting(one: Stuck, secrets: Held) -> list[Login]:
    """The logins for the image's registry in the Secrets that a pod names."""
    named = (secrets.get((one.namespace, name)) for name in one.secrets)
    held = [pull_secret.logins(secret) for secret in named if isinstance(secret, dict)]
    return pull_secret.fitting(held, one.image)


def _gives(settings: Settings, login: Login, image: str) -> bool:
    from moorage.registry import Credentials, client

    spelled = references.split(image)
    version = spelled.digest or spelled.tag or "latest"
    path = f"/v2/{diagnosis.repository(image)}/manifests/{version}"
    given = Credentials(login.user, login.password)
    try:
        answer = client.ask(
            settings, path, login=given, method="HEAD", accept=client.MANIFEST_TYPES
        )
    except MoorageError:
        return False
    return answer.status in (200, 404)


def _is_known(settings: Settings, login: Login) -> bool:
    from moorage.registry.logins import users as listed

    named = [one for one in users(settings) if one.name == login.user]
    return any(listed.is_right(settings, one, login.password) for one in named)
