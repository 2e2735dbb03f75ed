"""A workload that proves the trust, and why a pod cannot pull."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moorage.tasks.command import Run, command
from moorage.tasks.k8s.on_cluster import CLUSTER, check_timeout, cluster_of, told

if TYPE_CHECKING:
    from moorage.cluster.api.client import Api
    from moorage.cluster.login.login import Logins
    from moorage.cluster.login.secrets import Place
    from moorage.cluster.workload.deploy import Deployed, DeployStep, Workload


@command(
    lock=True,
    help={
        **CLUSTER,
        "namespace": "the namespace (else the first of kubernetes.namespaces)",
        "workload": "pod (as in the tutorial), deployment (with a Service), or daemonset",
        "name": "its name (else kubernetes.pod)",
        "image": "another image of serve_hostname",
        "node": "only on this node",
        "replicas": "how many pods a deployment has (2)",
        "replace": "even if somebody else has changed fields of ours",
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
    from moorage.cluster.login import login as given
    from moorage.cluster.login import namespaces, secrets
    from moorage.cluster.workload import deploy as deployment

    settings, ui = run.settings, run.ui
    _check_workload(workload, replicas, timeout)
    logins = given.needed(settings)
    to = manifests.Fit(
        ours.check_namespace(namespace or settings.kubernetes.namespaces[0]),
        ours.check_namespace(name or settings.kubernetes.pod),
        ours.check_image(image) if image else settings.image_reference,
        settings.kubernetes.secret if logins else "",
        ours.labels(settings, "workload"),
        replicas or None,
        node,
    )
    wanted = deployment.Workload(workload, to, replace, float(timeout))
    with cluster_of(run, kubeconfig, context) as api:
        namespaces.choose(api, namespaces.Choice(to.namespace))
        steps = deployment.plan(api, settings, wanted)
        place = secrets.Place(to.namespace, to.secret)
        login = _deploy_login(run, api, place, logins, dry_run)
        if dry_run:
            ui.present(deployment.foretold(steps))
            return _deploy_planned(run, api, steps, login)
        done = deployment.carry_out(api, settings, ui, wanted, steps)
        return _deployed(run, api, wanted, done, login)


def _check_workload(workload: str, replicas: int, timeout: int) -> None:
    from moorage.cluster.api.manifests import WORKLOADS
    from moorage.errors import Refused

    check_timeout(timeout, "k8s.deploy")
    wrong = ""
    if workload not in WORKLOADS:
        wrong = f"--workload {workload!r} is not one of {', '.join(WORKLOADS)}"
    elif replicas and workload != "deployment":
        wrong = "--replicas is for --workload deployment"
    elif not 0 <= replicas <= 1000:
        wrong = f"--replicas takes 1 to 1000, not {replicas}"
    if wrong:
        raise Refused("wrong-use", wrong, cure="inv --help k8s.deploy")


def _deploy_login(run: Run, api: Api, place: Place, logins: Logins | None, dry_run: bool) -> str:
    """Makes the Secret where it is missing or old. One that is somebody else's is used as it is;
    a registry that gives without a login needs none."""
    from moorage.cluster.login import secrets
    from moorage.errors import Refused

    if logins is None:
        return secrets.UNCHANGED
    wish = secrets.wish(run.settings, logins)
    try:
        return secrets.apply(api, run.ui, [place], wish, dry_run=dry_run)[0].status
    except Refused as problem:
        if problem.code != "secret-foreign":
            raise
        run.ui.note(f"Secret {place} is not ours: it is used as it is")
        return secrets.UNCHANGED


def _deploy_planned(run: Run, api: Api, steps: list[DeployStep], login: str) -> dict[str, Any]:
    changes = [step for step in steps if step.action != "unchanged"]
    if not changes and login == "unchanged":
        run.ui.show("Nothing to do: everything is in place.")
    return {
        "ok": True,
        "dry_run": True,
        "cluster": told(api),
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
        "cluster": told(api),
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
        **CLUSTER,
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
    check_timeout(timeout, "k8s.diagnose")
    settings, ui = run.settings, run.ui
    place, slash, name = pod.rpartition("/")
    place = place if slash else namespace
    if name:
        place = place or settings.kubernetes.namespaces[0]
        ours.check_object_name("pod", name)
    if place:
        ours.check_namespace(place)
    with cluster_of(run, kubeconfig, context) as api:
        with ui.progress("look at pods") as update:
            report = examine.examine(api, settings, namespace=place, pod=name, update=update)
        if fix:
            report = owners.with_last_tries(api, report)
        ui.present(telling.diagnosis(report))
        actions = cures.announce(settings, report) if fix else []
        if not fix or not actions or dry_run:
            ui.foretell(actions)
            if fix and report.groups and not actions:
                ui.show("None of these has a cure that Moorage can run.")
            return {
                "ok": not report.groups,
                "cluster": told(api),
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
            "cluster": told(api),
            **after.to_json(),
            "dry_run": False,
            "before": report.to_json(),
            "fixes": [one.to_json() for one in done],
        }
