"""The registry's login, as a Secret that pods pull with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moorage.tasks.command import Run, command
from moorage.tasks.k8s.on_cluster import CLUSTER, cluster_of, told

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.login.secrets import SecretOutcome


_NAMESPACES = {
    "namespace": "namespaces, a,b,c (else kubernetes.namespaces)",
    "selector": "namespaces with these labels, as team=web",
    "all": "all namespaces",
}


@command(
    lock=True,
    help={
        **CLUSTER,
        **_NAMESPACES,
        "name": "the Secret's name (else kubernetes.secret)",
        "attach": "also add it to the ServiceAccount `default`, so that pods need not name it",
        "service_accounts": "attach it to these ServiceAccounts, a,b,c, or * for all",
        "renew": "every Secret of ours, wherever it is: after a change of the password",
        "replace": "even if a Secret of that name is not ours or of another type",
        "credentials": "a file with one line user:password, - for stdin (else a pull-only login)",
        "per_namespace": "a login for each namespace (else one for all Secrets)",
        "dry_run": "print every change as a diff, without passwords, and change nothing",
    },
)
def secret(
    run: Run,
    namespace: str = "",
    selector: str = "",
    all: bool = False,
    name: str = "",
    attach: bool = False,
    service_accounts: str = "",
    renew: bool = False,
    replace: bool = False,
    credentials: str = "",
    per_namespace: bool = False,
    dry_run: bool = False,
    context: str = "",
    kubeconfig: str = "",
) -> dict[str, Any]:
    """Put a login that may only pull into namespaces as an image pull Secret.

    Example: inv k8s.secret --namespace=web,shop --attach
    Example: inv k8s.secret --all --per-namespace --dry-run
    """
    from moorage.cluster.api import ours
    from moorage.cluster.api.refusals import nothing_changed_yet
    from moorage.cluster.login import login, namespaces, secrets
    from moorage.errors import Refused

    settings, ui = run.settings, run.ui
    if renew and (namespace or selector or all or name):
        raise Refused(
            "wrong-use",
            "--renew takes no names: it finds every Secret of ours by its label",
            cause="a namespace or a name was given as well",
            cure="leave one of them out",
        )
    if credentials and per_namespace:
        raise Refused(
            "wrong-use",
            "--credentials and --per-namespace exclude each other",
            cause="a login of a file is the same in each namespace",
            cure="leave one of them out",
        )
    accounts = _accounts(attach, service_accounts)
    name = ours.check_object_name("Secret", name or settings.kubernetes.secret)
    logins = login.read(settings, credentials, per_namespace=per_namespace)
    wanted = secrets.wish(settings, logins, attach=accounts, replace=replace, standing=renew)
    with cluster_of(run, kubeconfig, context) as api:
        if renew:
            with nothing_changed_yet():
                places = secrets.every_one_of_ours(api, settings)
        else:
            choice = namespaces.Choice(namespace, selector, all, settings.kubernetes.namespaces)
            chosen = namespaces.choose(api, choice)
            for leaving in chosen.leaving:
                ui.note(f"passed over {leaving}: it is being deleted")
            places = [secrets.Place(one, name) for one in chosen.names]
        outcomes = secrets.apply(api, ui, places, wanted, dry_run=dry_run)
        return _secrets_told(run, api, outcomes, dry_run)


def _secrets_told(
    run: Run, api: Api, outcomes: list[SecretOutcome], dry_run: bool
) -> dict[str, Any]:
    from moorage.cluster.login.secrets import GONE

    ui = run.ui
    ui.table(
        ["namespace", "secret", "would be" if dry_run else "status", "attached to", "error"],
        [
            [
                one.place.namespace,
                one.place.name,
                one.status,
                ", ".join(one.attached),
                f"{one.error.message}; {one.error.cure}" if one.error else "",
            ]
            for one in outcomes
        ],
    )
    failed = [one for one in outcomes if one.error]
    changed = any(one.changed for one in outcomes)
    if not outcomes:
        ui.show("No Secret of ours is in this cluster.")
    elif not changed and not failed:
        went = any(one.status == GONE for one in outcomes)
        ui.show(
            f"Nothing changed: every Secret {'that is there ' if went else ''}was already in place."
        )
    return {
        "ok": not failed,
        "dry_run": dry_run,
        "changed": changed and not dry_run,
        "cluster": told(api),
        "registry": run.settings.registry_name,
        "secrets": [one.to_json() for one in outcomes],
    }


def _accounts(attach: bool, service_accounts: str) -> tuple[str, ...]:
    from moorage.cluster.api import ours
    from moorage.errors import Refused

    if not service_accounts:
        return ("default",) if attach else ()
    names = tuple(dict.fromkeys(part.strip() for part in service_accounts.split(",")))
    if names == ("*",):
        return names
    if "*" in names or not all(names):
        raise Refused(
            "wrong-use",
            f"--service-accounts {service_accounts!r} is not understood",
            cause="it takes names, a,b,c, or * alone",
            cure="--service-accounts default,builder",
        )
    return tuple(ours.check_object_name("ServiceAccount", name) for name in names)
