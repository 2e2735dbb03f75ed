"""Another certificate for the registry, served without a closed connection, and proven served."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorage.errors import MoorageError
from moorage.registry import client as https
from moorage.registry import served, service
from moorage.registry.logins import external

if TYPE_CHECKING:
    from moorage.settings import Settings
    from moorage.ui import UI


@dataclass(frozen=True)
class Renewed:
    """``fingerprint`` of the leaf that is served now (SHA-256, as ``certs.show`` says it)."""

    fingerprint: str
    not_after: datetime.datetime
    changed: bool


def renew(settings: Settings, ui: UI, *, another: bool = True) -> Renewed:
    """Makes another leaf, has the front serve it, and looks that it does.

    ``another``: False makes one only if the present one is due, and serves what there is. A pair
    that Moorage did not make is served as it lies in ``certs``. Raises Refused or MoorageError: the
    pair that was served goes on.
    """
    from moorage.pki import registry as pki

    external.require_own(settings, "inv certs.renew")
    service.require_running(settings)
    ui.present(pki.issue(settings, renew=another).notes)
    changed = service.put_pair(settings)
    facts = pki.show(settings).registry
    if facts is None:
        raise AssertionError("what was just issued has to be there")
    try:
        shown = served.certificate(settings).fingerprint
    except OSError as problem:
        raise https.explained(settings, problem) from None
    if shown != facts.fingerprint:
        raise MoorageError(
            "certificate-not-served",
            f"https://{settings.registry_name} still shows another certificate",
            cause=f"its SHA-256 is {shown}",
            cure="inv registry.up",
        )
    return Renewed(facts.fingerprint, facts.not_after, changed)
