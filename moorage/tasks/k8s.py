"""Kubernetes: the login, a workload that proves it, and why a pod cannot pull."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.cluster.agents import Rolled
    from moorage.cluster.api.client import Api
    from moorage.cluster.login.removal import Found
    from moorage.cluster.login.removal import Outcome as Removed
    from moorage.cluster.login.secrets import Outcome, Place
    from moorage.cluster.workload.deploy import Deployed, Step, Workload

_CLUSTER = {
    "context": "the kubeconfig's context (else kubernetes.context, else the current one)",
    "kubeconfig": "the kubeconfig file (else settings, $KUBECONFIG, the lab's, ~/.kube/config)",
}
_NAMESPACES = {
    "namespace": "namespaces, a,b,c (else kubernetes.namespaces)",
    "selector": "namespaces with these labels, as team=web",
    "all": "all namespaces",
}


@command(
    lock=True,
    help={
        **_CLUSTER,
        **_NAMESPACES,
        "name": "the Secret's name (else kubernetes.secret)",
        "attach": "also add it to the ServiceAccount `default`, so that pods need not name it",
        "service_accounts": "attach it to these ServiceAccounts, a,b,c, or * for all",
        "renew": "every Secret of ours, wherever it is: after a change of the password",
        "replace": "also where a Secret of that name is not ours or of another type",
        "credentials": "a file with one line user:password, - for stdin (else the registry's own)",
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
    dry_run: bool = False,
    context: str = "",
    kubeconfig: str = "",
) -> dict[str, Any]:
    """Put the registry's login into namespaces as an image pull Secret.

    Example: inv k8s.secret --namespace=web,shop --attach
    Example: inv k8s.secret --all --dry-run
    """
    from moorage.cluster.api import ours
    from moorage.cluster.api.refusals import nothing_changed_yet
    from moorage.cluster.login import login, namespaces, secrets
    from moorage.errors import Refused

    settings, ui = run.settings, run.ui
    if renew and (namespace or selector or all or name):
        raise Refused(
            "wrong-use",
            "--renew stands alone: it finds every Secret of ours by its label",
            cause="a namespace or a name was given as well",
            cure="leave one of them out",
        )
    accounts = _accounts(attach, service_accounts)
    name = ours.check_object_name("Secret", name or settings.kubernetes.secret)
    wanted = secrets.wish(settings, login.read(settings, credentials), attach=accounts,
                          replace=replace)  # fmt: skip
    with _cluster_of(run, kubeconfig, context) as api:
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


def _secrets_told(run: Run, api: Api, outcomes: list[Outcome], dry_run: bool) -> dict[str, Any]:
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
        ui.show("Nothing changed: every Secret stood already.")
    return {
        "ok": not failed,
        "dry_run": dry_run,
        "changed": changed and not dry_run,
        "cluster": _cluster(api),
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


@contextmanager
def _cluster_of(run: Run, kubeconfig: str, context: str) -> Iterator[Api]:
    """The cluster that is meant; what fails in it has a cure that is typed for it."""
    from moorage.cluster.login import access

    api = access.connect(run.settings, run.ui, kubeconfig=kubeconfig, context=context)
    with access.typed_for(api):
        yield api


@command(
    lock=True,
    help={
        **_CLUSTER,
        "namespace": "the namespace (else the first of kubernetes.namespaces)",
        "workload": "pod (as in the tutorial), deployment (with a Service), or daemonset",
        "name": "its name (else kubernetes.pod)",
        "image": "another image of serve_hostname",
        "node": "only on this node",
        "replicas": "how many pods a deployment has (2)",
        "replace": "also where somebody else has changed fields of ours",
        "timeout": "seconds to wait until it is ready",
        "dry_run": "print every change as a diff and change nothing",
    },
)
def deploy(
    run: Run,
    namespace: str = "",
    workload: str = "pod",
    name: str = "",
    image: str = "",
    node: str = "",
    replicas: int = 0,
    replace: bool = False,
    timeout: int = 180,
    dry_run: bool = False,
    context: str = "",
    kubeconfig: str = "",
) -> dict[str, Any]:
    """Run the demo image in the cluster, with its Secret, and wait until it answers.

    Example: inv k8s.deploy --namespace=web --workload=deployment
    Example: inv k8s.deploy --workload=daemonset --timeout=300
    """
    from moorage.cluster.api import manifests, ours
    from moorage.cluster.login import namespaces, secrets
    from moorage.cluster.workload import deploy as deployment

    settings, ui = run.settings, run.ui
    _check_workload(workload, replicas, timeout)
    to = manifests.Fit(
        ours.check_namespace(namespace or settings.kubernetes.namespaces[0]),
        ours.check_namespace(name or settings.kubernetes.pod),
        ours.check_image(image) if image else settings.image_reference,
        settings.kubernetes.secret,
        ours.labels(settings, "workload"),
        replicas or None,
        node,
    )
    wanted = deployment.Workload(workload, to, replace, float(timeout))
    with _cluster_of(run, kubeconfig, context) as api:
        namespaces.choose(api, namespaces.Choice(to.namespace))
        steps = deployment.plan(api, settings, wanted)
        place = secrets.Place(to.namespace, to.secret)
        login = _deploy_login(run, api, place, dry_run)
        if dry_run:
            ui.present(deployment.foretold(steps))
            return _deploy_planned(run, api, steps, login)
        done = deployment.carry_out(api, settings, ui, wanted, steps)
        return _deployed(run, api, wanted, done, login)


def _check_workload(workload: str, replicas: int, timeout: int) -> None:
    from moorage.cluster.api.manifests import WORKLOADS
    from moorage.errors import Refused

    _check_timeout(timeout, "k8s.deploy")
    wrong = ""
    if workload not in WORKLOADS:
        wrong = f"--workload {workload!r} is not one of {', '.join(WORKLOADS)}"
    elif replicas and workload != "deployment":
        wrong = "--replicas is for --workload deployment"
    elif not 0 <= replicas <= 1000:
        wrong = f"--replicas takes 1 to 1000, not {replicas}"
    if wrong:
        raise Refused("wrong-use", wrong, cure="inv --help k8s.deploy")


def _check_timeout(seconds: int, task: str) -> None:
    from moorage.errors import Refused

    if not 1 <= seconds <= 86400:
        wrong = f"--timeout takes 1 to 86400 seconds, not {seconds}"
        raise Refused("wrong-use", wrong, cure=f"inv --help {task}")


def _deploy_login(run: Run, api: Api, place: Place, dry_run: bool) -> str:
    """Makes the Secret where it is missing or old. One that is somebody else's is used as it is."""
    from moorage.cluster.login import login, secrets
    from moorage.errors import Refused

    wish = secrets.wish(run.settings, login.read(run.settings, ""))
    try:
        return secrets.apply(api, run.ui, [place], wish, dry_run=dry_run)[0].status
    except Refused as problem:
        if problem.code != "secret-foreign":
            raise
        run.ui.note(f"Secret {place} is not ours: it is used as it is")
        return secrets.UNCHANGED


def _deploy_planned(run: Run, api: Api, steps: list[Step], login: str) -> dict[str, Any]:
    changes = [step for step in steps if step.action != "unchanged"]
    if not changes and login == "unchanged":
        run.ui.show("Nothing to do: everything stands.")
    return {
        "ok": True,
        "dry_run": True,
        "cluster": _cluster(api),
        "secret": login,
        "objects": [{"object": step.words, "would_be": step.action} for step in steps],
    }


def _deployed(run: Run, api: Api, wanted: Workload, done: Deployed, login: str) -> dict[str, Any]:
    from moorage.cluster.workload import telling

    ui, fit = run.ui, wanted.fit
    typed = [api.where.typed(line) for line in _deploy_next(wanted, done)]
    if done.problem is not None:
        done.problem.with_cure(api.where.typed(done.problem.cure))
    changed = done.changed or login != "unchanged"
    ui.present(telling.deployed(fit.image, done, changed=changed))
    ui.show("Next:")
    for line in typed:
        ui.show(f"  {line}")
    return {
        "ok": done.ok,
        "changed": changed,
        "cluster": _cluster(api),
        "namespace": fit.namespace,
        "image": fit.image,
        "secret": login,
        **done.to_json(),
        "next": typed,
    }


def _deploy_next(wanted: Workload, done: Deployed) -> list[str]:
    place, name = f"-n {wanted.fit.namespace}", wanted.fit.name
    if not done.ok:
        groups = done.report.groups if done.report else ()
        cure = ["inv k8s.diagnose --fix"] if any(group.fix for group in groups) else []
        return [*cure, f"kubectl describe pod {place} {name}"]
    selector = "" if wanted.kind == "pod" else f" -l app.kubernetes.io/name={name}"
    target = f"pod/{name}" if wanted.kind == "pod" else f"{wanted.kind}/{name}"
    return [
        f"kubectl get pods {place} -o wide{selector}",
        f"kubectl port-forward {place} {target} 8080:8080",
        "inv k8s.nodes",
        "inv k8s.rm",
    ]


@command(
    lock="fix",
    positional=["pod"],
    help={
        **_CLUSTER,
        "pod": "only this pod, as NAME or NAMESPACE/NAME (else all pods that cannot pull)",
        "namespace": "only in this namespace (else in all)",
        "fix": "run the cures that are commands of ours, and wait until the pods run",
        "timeout": "with --fix: seconds to wait for the pods (330, the kubelet's longest pause)",
        "dry_run": "with --fix: say what would be done and change nothing",
    },
)
def diagnose(
    run: Run,
    pod: str = "",
    namespace: str = "",
    fix: bool = False,
    timeout: int = 330,
    dry_run: bool = False,
    context: str = "",
    kubeconfig: str = "",
    yes: bool = False,
) -> dict[str, Any]:
    """Say why pods cannot pull, grouped by cause, each with the command that cures it.

    Example: inv k8s.diagnose --fix
    Example: inv k8s.diagnose web/private-reg
    """
    from moorage.cluster.api import ours
    from moorage.cluster.diagnosis import examine, owners
    from moorage.cluster.workload import cures, telling

    del yes  # the voice knows it already
    _check_timeout(timeout, "k8s.diagnose")
    settings, ui = run.settings, run.ui
    place, slash, name = pod.rpartition("/")
    place = place if slash else namespace
    if name:
        place = place or settings.kubernetes.namespaces[0]
        ours.check_object_name("pod", name)
    if place:
        ours.check_namespace(place)
    with _cluster_of(run, kubeconfig, context) as api:
        with ui.progress("look at pods") as update:
            report = examine.examine(api, settings, namespace=place, pod=name, update=update)
        if fix:
            report = owners.with_last_tries(api, report)
        ui.present(telling.diagnosis(report))
        actions = cures.announce(settings, report) if fix else []
        if not fix or not actions or dry_run:
            for action in actions:
                ui.show(f"would {action}")
            if fix and report.groups and not actions:
                ui.show("None of these has a cure that is a command of ours.")
            return {
                "ok": not report.groups,
                "cluster": _cluster(api),
                **report.to_json(),
                "dry_run": dry_run,
                "actions": actions,
            }
        ui.confirm(actions)
        done, after = cures.by_rounds(api, settings, ui, report, float(timeout))
        for one in done:
            if one.error:
                ui.error(one.error)
        ui.show("")
        ui.present(telling.after_cures(after))
        return {
            "ok": not after.groups and not after.waiting and all(one.ok for one in done),
            "cluster": _cluster(api),
            **after.to_json(),
            "dry_run": False,
            "before": report.to_json(),
            "fixes": [one.to_json() for one in done],
        }


@command(help={**_CLUSTER, "selector": "only nodes with these labels, as role=edge"})
def nodes(run: Run, selector: str = "", context: str = "", kubeconfig: str = "") -> dict[str, Any]:
    """List the cluster's nodes, and which of them trust the registry, by what proof.

    Example: inv k8s.nodes --selector=node-role.kubernetes.io/edge
    Example: inv k8s.nodes --context=production --json
    """
    from moorage.cluster.diagnosis import nodes as inventory

    with _cluster_of(run, kubeconfig, context) as api:
        proofs = inventory.prove(api, run.settings, selector)
        words = {True: "yes", False: "no", None: "unknown"}
        run.ui.table(
            ["node", "address", "runtime", "kubelet", "ready", "trusts", "proven by"],
            [
                [
                    one.node.name,
                    one.node.address,
                    one.node.runtime,
                    one.node.kubelet,
                    "yes" if one.node.ready else "no",
                    words[one.trusts],
                    one.words,
                ]
                for one in proofs
            ],
        )
        missing = [one.node.name for one in proofs if not one.trusts]
        if missing:
            line = "inv nodes.trust --from-cluster, or inv k8s.deploy --workload=daemonset"
            run.ui.show(f"Next: {api.where.typed(line)}")
        return {
            "ok": True,
            "cluster": _cluster(api),
            "registry": run.settings.registry_name,
            "nodes": [one.to_json() for one in proofs],
        }


@command(
    lock=True,
    help={
        **_CLUSTER,
        "namespace": "only in these namespaces, a,b,c (else everywhere)",
        "dry_run": "say what would be removed and change nothing",
    },
)
def rm(
    run: Run,
    namespace: str = "",
    dry_run: bool = False,
    context: str = "",
    kubeconfig: str = "",
    yes: bool = False,
) -> dict[str, Any]:
    """Remove all that is ours from the cluster, found by label, and nothing else.

    Example: inv k8s.rm --dry-run
    Example: inv k8s.rm --namespace=web,shop --yes
    """
    from moorage.cluster import agents
    from moorage.cluster.login import namespaces, removal

    del yes
    ui = run.ui
    chosen = namespaces.split(namespace, "--namespace")
    with _cluster_of(run, kubeconfig, context) as api:
        found = removal.find(api, run.settings, chosen)
        for problem in found.unseen:
            ui.warn(f"{problem.message}: what is ours among them stays")
        for other in found.others:
            ui.note(f"left alone: what belongs to the registry {other}")
        actions = [thing.action for thing in found.things]
        if dry_run or not actions:
            for action in actions:
                ui.show(f"would {action}")
            if not actions:
                if chosen:  # a misspelt one must not look clean
                    namespaces.choose(api, namespaces.Choice(namespace))
                ui.show("Nothing of ours is there.")
            return {"ok": True, "dry_run": dry_run, "cluster": _cluster(api), "actions": actions}
        ui.confirm(actions)
        outcomes = _take_away(run, api, found)
        if any(thing.kind == "DaemonSet" for thing in found.things) and not chosen:
            agents.forget_nodes(api)
        left = _left(run, outcomes)
        told = f"Removed {len(outcomes) - left} of {len(outcomes)}"
        ui.show(f"{told}; why not the others, is said above." if left else f"{told}.")
        return _removed(api, outcomes)


@command(
    lock=True,
    help={
        **_CLUSTER,
        "grade": "auto (the least that does, node by node), files, or full",
        "agent_image": "an image with Python 3.9 or later (else kubernetes.agent_image)",
        "max_unavailable": "how many nodes at once get a new version, as 3 or 10%",
        "timeout": "seconds to wait for every node",
        "remove": "take the agents away again; the trust stays",
        "untrust": "with --remove: have them take the trust away first",
        "dry_run": "print every change as a diff and change nothing",
    },
)
def agents(
    run: Run,
    grade: str = "auto",
    agent_image: str = "",
    max_unavailable: str = "10%",
    timeout: int = 180,
    remove: bool = False,
    untrust: bool = False,
    dry_run: bool = False,
    context: str = "",
    kubeconfig: str = "",
    yes: bool = False,
) -> dict[str, Any]:
    """Keep the trust on every node by a DaemonSet, also on nodes that join later.

    Example: inv k8s.agents --agent-image=python:3.13-slim
    Example: inv k8s.agents --remove --untrust
    """
    from moorage.cluster import agents as agency
    from moorage.cluster.api import ours

    del yes
    _check_timeout(timeout, "k8s.agents")
    _check_agents(grade, max_unavailable, remove, untrust)
    if agent_image:
        ours.check_image(agent_image)
    wanted = agency.Wanted(grade, agent_image, max_unavailable, float(timeout))
    with _cluster_of(run, kubeconfig, context) as api:
        if remove:
            return _agents_removed(run, api, untrust, dry_run, float(timeout))
        if not dry_run:
            run.ui.confirm(
                [
                    f"run an agent on every node of {api.where.context}, in the namespace"
                    f" {run.settings.kubernetes.agents_namespace}, with {_MOUNTED[grade]} mounted"
                ]
            )
        rolled = agency.roll_out(api, run.settings, run.ui, wanted, dry_run=dry_run)
        return _agents_told(run, api, rolled, dry_run)


_MOUNTED = {
    "auto": "the node's trust folders, or its whole tree where that is needed,",
    "files": "the node's trust folders",
    "full": "the node's whole tree",
}


def _check_agents(grade: str, max_unavailable: str, remove: bool, untrust: bool) -> None:
    import re

    from moorage.cluster.agents import GRADES
    from moorage.errors import Refused

    wrong = ""
    if grade not in GRADES:
        wrong = f"--grade {grade!r} is not one of {', '.join(GRADES)}"
    elif not re.fullmatch(r"[1-9]\d{0,3}|([1-9]\d?|100)%", max_unavailable):
        wrong = f"--max-unavailable {max_unavailable!r} is neither a number nor a share like 10%"
    elif untrust and not remove:
        wrong = "--untrust goes with --remove; inv nodes.untrust does it over SSH"
    if wrong:
        raise Refused("wrong-use", wrong, cure="inv --help k8s.agents")


def _agents_told(run: Run, api: Api, rolled: Rolled, dry_run: bool) -> dict[str, Any]:
    from moorage.cluster.workload import telling

    ui = run.ui
    if not dry_run:
        ui.table(
            ["node", "runtime", "grade", "status", "pull proven", "why"],
            [
                [
                    one.node.name,
                    one.node.runtime,
                    one.grade,
                    one.status or "no word yet",
                    "yes" if one.proven else "no",
                    one.error or one.why,
                ]
                for one in rolled.states
            ],
        )
    if rolled.report is not None:
        ui.present(telling.diagnosis(rolled.report))
    # A node that has the image and asks the registry all the same is helped by no preload.
    if rolled.report is not None and any(
        one.container in ("trust", "agent")
        for group in rolled.report.groups
        if group.code != "always-verify"
        for one in group.stuck
    ):
        ui.show("")
        ui.show("The agents' own image cannot be pulled: name another with --agent-image, or load")
        line = "inv nodes.preload IMAGE --from-cluster"
        ui.show(f"it into the nodes beforehand: {api.where.typed(line)}")
    changed = any(action != "unchanged" for action in rolled.objects.values())
    if not changed:
        ui.show("Nothing changed." if not dry_run else "Nothing to do: everything stands.")
    return {
        "ok": rolled.ok,
        "dry_run": dry_run,
        "changed": changed and not dry_run,
        "cluster": _cluster(api),
        "nodes": [one.to_json() for one in rolled.states],
        "objects": rolled.objects,
        "diagnosis": rolled.report.to_json() if rolled.report else None,
    }


def _agents_removed(
    run: Run, api: Api, untrust: bool, dry_run: bool, timeout: float
) -> dict[str, Any]:
    from moorage.cluster import agents as agency
    from moorage.cluster.login import removal
    from moorage.errors import MoorageError

    settings, ui = run.settings, run.ui
    found = removal.find(api, settings, part="agents")
    actions = [thing.action for thing in found.things]
    marked = agency.marked_nodes(api)
    if marked:
        actions.append(f"take our annotations off {', '.join(marked)}")
    if untrust and actions:
        actions.insert(0, "take the trust in the registry away from every node")
    if dry_run or not actions:
        for action in actions:
            ui.show(f"would {action}")
        if not actions:
            ui.show("There are no agents.")
        return {"ok": True, "dry_run": dry_run, "cluster": _cluster(api), "actions": actions}
    ui.confirm(actions)
    if untrust:
        left = agency.take_trust_away(api, settings, ui, timeout)
        if left:
            names = ", ".join(one.node.name for one in left)
            raise MoorageError(
                "still-trusting",
                f"these nodes still have the trust: {names}",
                cause=left[0].error or "their agents have not answered in time",
                cure="look at their pods, then run the same command again; the agents are kept",
            )
    outcomes = _take_away(run, api, removal.find(api, settings, part="agents"))
    agency.forget_nodes(api)
    left_over = _left(run, outcomes)
    ui.show("The agents are gone." if not left_over else f"{left_over} objects are left.")
    return _removed(api, outcomes)


def _take_away(run: Run, api: Api, found: Found) -> list[Removed]:
    from moorage.cluster.login import removal

    with run.ui.progress(f"remove {len(found.things)} objects") as update:
        return removal.remove(api, found, update)


def _left(run: Run, outcomes: Sequence[Removed]) -> int:
    """How many of them are left; each is told, and why."""
    from moorage.cluster.login import removal

    run.ui.present(removal.failures(outcomes))
    return sum(not one.is_away for one in outcomes)


def _removed(api: Api, outcomes: Sequence[Removed]) -> dict[str, Any]:
    return {
        "ok": not any(one.error for one in outcomes),
        "dry_run": False,
        "cluster": _cluster(api),
        "objects": [one.to_json() for one in outcomes],
    }


def _cluster(api: Api) -> dict[str, str]:
    return {"server": api.where.server, "context": api.where.context}


namespace = Collection("k8s", secret, deploy, diagnose, nodes, agents, rm)
