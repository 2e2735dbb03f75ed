"""The other profiles of this checkout, if one node serves several: whose agent stays on it.

One agent stays on a node, and keeps the trust in every registry that the node trusts; it obeys the
fleet CA of the profile that adopted it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from moorage.configuration.paths import expanded
from moorage.configuration.profiles import DEFAULT, said, there
from moorage.errors import MoorageError, Refused
from moorage.output.typed import OPTION
from moorage.pki.roster import Resident, Roster

if TYPE_CHECKING:
    from moorage.settings import Settings


def holder(settings: Settings, identity: str) -> str:
    """The other profile whose agent has that id, by its name; "" for none."""
    found = (
        name
        for name, residents in _others(settings)
        if identity in {one.id for one in residents.values()}
    )
    return next(found, "")


def any_resident(settings: Settings) -> bool:
    """Whether an agent stays anywhere for another profile of this checkout."""
    return any(residents for _, residents in _others(settings))


def not_ours(profile: str, host: str) -> Refused:
    """The refusal to take over, or away, an agent that another profile's operator commands."""
    return Refused(
        "another-profiles",
        f"the agent on this node is commanded by the profile {profile}, and keeps the trust in "
        "every registry that the node trusts",
        cause="one agent stays on a node; it obeys the fleet CA of the profile that adopted it",
        cure=f"nothing has to be done; to change whose it is: inv {OPTION}={profile} "
        f"nodes.release --hosts={host}, then inv nodes.adopt --hosts={host}",
        host=host,
    )


def _others(settings: Settings) -> Iterator[tuple[str, dict[str, Resident]]]:
    """Each other profile, and its nodes; one whose files cannot be read has none."""
    for name in ("", *there(settings.root)):
        if name == settings.profile:
            continue
        with suppress(MoorageError, OSError, ValueError):
            theirs = dataclasses.replace(settings, profile=name)
            certs = dataclasses.replace(settings.certs, dir=_certs_dir(theirs))
            yield name or DEFAULT, Roster(dataclasses.replace(theirs, certs=certs)).residents()


def _certs_dir(settings: Settings) -> str:
    """Where another profile's certificates are, by its own file."""
    try:
        named = str(said(settings.root, settings.profile)["certs"]["dir"])
    except (TypeError, KeyError):
        return str(type(settings.certs)().dir)
    return expanded("certs.dir", named)
