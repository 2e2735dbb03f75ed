"""New passwords for the logins that a cluster holds: put there, and each proven by the registry.

The old passwords are right all the while, so that no pull between two steps is refused. They end
once no Secret and no plan holds them, in any cluster that got them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from moorage.cluster.agents import documents as made_of
from moorage.cluster.agents.rollout import apply
from moorage.cluster.agents.states import wait
from moorage.cluster.api import told
from moorage.cluster.login import admins, login, secrets
from moorage.registry import Credentials, client, handed, service
from moorage.registry.logins import users

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.login.pull_secret import Login
    from moorage.output import Progress
    from moorage.settings import Settings
    from moorage.ui import UI


@dataclass(frozen=True)
class Rotated:
    """What became of a login: ``why`` its old password is still right, "" if it has ended."""

    name: str
    why: str = ""

    def to_json(self) -> dict[str, str]:
        return {**asdict(self), "status": "waits" if self.why else "rotated"}


def due(settings: Settings) -> list[str]:
    """The names of the logins that :func:`rotate` would take: all, or those it has begun with."""
    found = users.handed_out(settings)
    return [one.name for one in found if len(one.proofs) > 1] or [one.name for one in found]


def needs_cluster(settings: Settings, names: Iterable[str]) -> bool:
    """Whether a cluster holds one of these logins."""
    held = handed.holders(settings)
    return any(held.get(name) for name in names)


def rotate(
    settings: Settings, ui: UI, api: Api | None, names: Sequence[str], seconds: float
) -> list[Rotated]:
    """Gives these logins other passwords; the same call goes on with what was begun.

    ``api``: the cluster that is switched now, None if none holds any. Raises Refused or
    MoorageError; old and new passwords are right then.
    """
    service.require_running(settings)
    if api is not None:
        told.order(api, settings)  # one that cannot be read is refused while nothing is changed
    users.begin_rotation(settings, names)
    service.put_logins(settings)
    left = {} if api is None else switch(api, settings, ui, names, seconds)
    if api is not None:
        handed.proven(settings, [one for one in names if one not in left], api.where.server)
    found = {one.name: one for one in users.handed_out(settings)}
    for name in names:
        clusters = handed.behind(settings, found[name])
        if clusters and name not in left:
            left[name] = f"{_some(clusters)} may hold the password before"
        if name not in left:
            users.drop_old(settings, name)
    service.put_logins(settings)
    return [Rotated(name, left.get(name, "")) for name in names]


def switch(
    api: Api, settings: Settings, ui: UI, names: Sequence[str], seconds: float
) -> dict[str, str]:
    """Puts the newest passwords of these logins into the cluster, and proves them there.

    Returns, for each login that is not proven everywhere, why. ``seconds``: for the agents' proof.
    """
    left: dict[str, str] = {}
    outcomes = secrets.apply(
        api,
        ui,
        secrets.every_one_of_ours(api, settings),
        secrets.wish(settings, login.read(settings, ""), standing=True),
    )
    failed = [one for one in outcomes if one.error is not None]
    if users.name_for(users.NODES) in names:
        why = _agents(api, settings, ui.progress, seconds)
        if why:
            left[users.name_for(users.NODES)] = why
    found = [one for one in admins.logins_held(api, settings) if one[1].user in names]
    good = {one for one in {held for _, held in found} if _is_newest(settings, one)}
    for where, held in found:
        if held not in good:
            left.setdefault(held.user, f"Secret {where} holds the password before")
    for one in failed:
        for name in names:
            left.setdefault(name, f"Secret {one.place} could not be written: {one.error}")
    return left


def _is_newest(settings: Settings, held: Login) -> bool:
    """Whether it has the password that is handed out now, and the registry takes it."""
    found = {one.name: one for one in users.handed_out(settings)}.get(held.user)
    if found is None or not users.is_right(settings, found, held.password, newest=True):
        return False
    return client.ask(settings, "/v2/", login=Credentials(held.user, held.password)).status == 200


def _agents(api: Api, settings: Settings, progress: Progress, seconds: float) -> str:
    """The agents' plan with the newest password, pulled with by each of them; why not, else ""."""
    was = told.order(api, settings)
    if was is None:
        return ""  # another checkout's agents: our login is nothing for its registry
    plan = _renewed(was.plan, handed.to_nodes(settings))
    apply(api, [made_of.plan_secret(settings, plan, was.action)])
    if was.action != told.APPLY:
        return ""
    with progress("wait for the agents to pull with it") as update:
        left = wait(api, told.Order(plan, told.APPLY), seconds, update).left
    if not left:
        return ""
    names = _some(one.node.name for one in left)
    return f"the agents of {names} have not pulled with the new password yet"


def _renewed(plan: bytes, new: Credentials | None) -> bytes:
    """The plan with another login, else as it is. Pure."""
    document = json.loads(plan)
    if new is None or not document.get("verify"):
        return plan
    document["verify"] |= {"username": new.user, "password": new.password}
    return json.dumps(document).encode()


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more
