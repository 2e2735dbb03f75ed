"""Who may do what at the registry: logins with a role each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.registry.front.roles import User

_DRY = "say what would be changed, and change nothing"


@command(
    lock=True,
    help={
        "name": "the login's name; 'robot$ci' in single quotes",
        "role": "pull (reads), push (also writes) or admin (also deletes)",
        "repositories": "which ones, as team/app,base/** (else all)",
        "expires": "when it ends: hours, days or weeks from now, as 90d (else never)",
        "dry_run": _DRY,
    },
    positional=["name"],
    own_registry="inv users.add",
)
def add(
    run: Run,
    name: str,
    role: str = "",
    repositories: str = "",
    expires: str = "",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Let somebody in at the registry, or change what a login may do.

    Example: inv users.add robot --role=push --repositories='team-a/**' --expires=90d
    Example: inv users.add reader --role=pull --dry-run
    """
    import datetime

    from moorage.registry.front import roles
    from moorage.registry.front.roles import User
    from moorage.registry.logins import users

    now = datetime.datetime.now(datetime.UTC)
    wanted = User(
        roles.check_name(name),
        roles.check_role(role),
        roles.check_patterns(repositories),
        roles.check_expiry(expires, now),
    )
    users.refuse_reserved(run.settings, name)
    before = {one.name: one for one in users.read(run.settings)}.get(name)
    changed = before is None or users.differ(before, wanted, now.timestamp())
    password = "" if dry_run or not changed else users.add(run.settings, wanted)
    served = _put(run, dry_run)
    verb = "added" if before is None else "changed"
    if before is not None and not changed:
        wanted = before  # its end is the one in force, not the one just counted
    _told(run, wanted, changed, dry_run, verb)
    for pattern in _of_nothing(run, wanted):
        run.ui.note(f"no repository matches {pattern} yet; the first push there makes one")
    if password:
        run.ui.show(f"Its password, shown this once: {password}")
    return _document(wanted, password, served, changed=changed, dry_run=dry_run)


@command(
    lock=True,
    help={"name": "the login's name", "dry_run": _DRY},
    positional=["name"],
    own_registry="inv users.password",
)
def password(run: Run, name: str, dry_run: bool = False) -> dict[str, Any]:
    """Give a login another password; the old one is refused at once.

    Example: inv users.password robot
    Example: inv users.password robot --json
    """
    from moorage.registry.logins import users

    users.refuse_reserved(run.settings, name)
    user = users.find(run.settings, name)
    new = "" if dry_run else users.change_password(run.settings, name)
    served = _put(run, dry_run)
    if dry_run:
        run.ui.show(f"The login {name} would get another password.")
    else:
        run.ui.show(f"Its password, shown this once: {new}")
    return _document(user, new, served, changed=True, dry_run=dry_run)


@command(
    lock=True,
    help={"name": "the login's name", "dry_run": _DRY},
    positional=["name"],
    own_registry="inv users.remove",
)
def remove(run: Run, name: str, dry_run: bool = False) -> dict[str, Any]:
    """Take a login away; its next request is refused.

    Example: inv users.remove robot
    Example: inv users.remove robot --dry-run
    """
    from moorage.registry.logins import users

    users.refuse_operators(run.settings, name)
    there = any(one.name == name for one in users.read(run.settings))
    if there and not dry_run:
        users.remove(run.settings, name)
    served = _put(run, dry_run)  # also after a run that was stopped between the two
    word = "would be taken away" if dry_run else "is taken away"
    run.ui.show(f"The login {name} {word}." if there else f"Unchanged: there is no login {name}.")
    return {"ok": True, "changed": there and not dry_run, "dry_run": dry_run, "served": served}


@command(
    lock=True,
    help={
        "without": "a cluster that is gone, by its API server's URL: it is not waited for",
        "timeout": "seconds to wait until the agents of a cluster have pulled with it",
        "context": "the kubeconfig's context of the cluster that is switched now",
        "kubeconfig": "the kubeconfig file",
        "dry_run": _DRY,
    },
    own_registry="inv users.rotate",
)
def rotate(
    run: Run,
    without: str = "",
    timeout: int = 180,
    context: str = "",
    kubeconfig: str = "",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Give the logins of nodes and Secrets other passwords, without a refused pull between.

    Example: inv users.rotate --context=production
    Example: inv users.rotate --dry-run
    """
    from contextlib import ExitStack

    from moorage.cluster.agents import rotation
    from moorage.registry import handed
    from moorage.tasks.k8s.on_cluster import check_timeout, cluster_of

    check_timeout(timeout, "users.rotate")
    settings, ui = run.settings, run.ui
    if without and not dry_run:
        handed.let_go(settings, without)
    names = rotation.due(settings)
    if dry_run:
        for name in names:
            ui.show(f"The login {name} would get another password.")
        return {"ok": True, "changed": False, "dry_run": True, "logins": names}
    with ExitStack() as stack:
        api = None
        if context or kubeconfig or rotation.needs_cluster(settings, names):
            api = stack.enter_context(cluster_of(run, kubeconfig, context))
        done = rotation.rotate(settings, ui, api, names, float(timeout))
    ui.table(
        ("login", "password", "why"),
        [
            [one.name, "the old one is still right" if one.why else "another one", one.why]
            for one in done
        ],
    )
    waits = any(one.why for one in done)
    if waits:
        ui.show("Next: inv users.rotate again, with --context for another cluster; it goes on.")
    return {
        "ok": not waits,
        "changed": bool(done),
        "dry_run": False,
        "logins": [one.to_json() for one in done],
    }


@command(name="list", own_registry="inv users.list")
def list_(run: Run) -> dict[str, Any]:
    """Show who may do what, and until when.

    Example: inv users.list
    Example: inv users.list --json
    """
    from moorage.registry.logins import users

    everybody, now = users.everybody(run.settings), time.time()
    found = [one.to_json() for one in everybody]
    rows = [
        [
            one.name,
            one.role,
            ", ".join(one.repositories),
            f"{'ended ' if one.expires <= now else ''}{_time(one.expires)}"
            if one.expires
            else "never",
            one.purpose,
        ]
        for one in everybody
    ]
    run.ui.table(("login", "role", "repositories", "ends", "made for"), rows)
    return {"ok": True, "users": found}


def _of_nothing(run: Run, user: User) -> list[str]:
    """The patterns that no repository matches yet; none before the first push, or if the registry's
    folder cannot be read."""
    from moorage.errors import MoorageError
    from moorage.registry.front import roles
    from moorage.registry.storage.opened import opened

    try:
        there = list(opened(run.settings).repositories())
    except (MoorageError, OSError):
        return []
    fits = {one: any(roles.grants(one, name) for name in there) for one in user.repositories}
    return [one for one, known in fits.items() if there and not known]


def _put(run: Run, dry_run: bool) -> bool:
    """Whether a front serves the logins as they are now."""
    from moorage.registry import service

    served = False if dry_run else service.put_logins(run.settings)
    if not served and not dry_run:
        run.ui.note("no front runs here; inv registry.up starts it with these logins")
    return served


def _document(
    user: User, password: str, served: bool, *, changed: bool, dry_run: bool
) -> dict[str, Any]:
    """``password``: one that was just made, "" for none."""
    return {
        "ok": True,
        "changed": changed and not dry_run,
        "dry_run": dry_run,
        "served": served,
        "user": user.to_json(),
        **({"password": password} if password else {}),
    }


def _told(run: Run, user: User, changed: bool, dry_run: bool, verb: str) -> None:
    until = f"until {_time(user.expires)} UTC" if user.expires else "without an end"
    what = f"{user.role} of {', '.join(user.repositories)}, {until}"
    if not changed:
        run.ui.show(f"Unchanged: the login {user.name} already has this: {what}.")
    elif dry_run:
        run.ui.show(f"The login {user.name} would be {verb}: {what}.")
    else:
        run.ui.show(f"The login {user.name} is {verb}: {what}.")


def _time(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


namespace = Collection("users", add, password, remove, rotate, list_)
