"""The whole walk: up, down, doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.walk.phase import Walk


@command(
    help={
        "kubernetes": "make the nodes a Kubernetes cluster, and run a pod from the registry in it",
        "dry_run": "print every change as a diff and change nothing",
    },
    lock=True,
    own_registry="inv up",
)
def up(
    run: Run, kubernetes: bool = False, yes: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Stand everything up: registry, image, nodes that trust it and have pulled from it.

    Example: inv up --kubernetes --yes
    Example: inv up --dry-run
    """
    from moorage.walk import phase
    from moorage.walk import up as walk_up

    del yes  # the voice knows it already
    walk = phase.Walk(run.settings, run.ui)
    phases = walk_up.KUBERNETES_PHASES if kubernetes else walk_up.PHASES
    actions = phase.pending(walk, phases)
    if dry_run:
        return _show_pending(walk, actions)
    if any(action.asks for action in actions):
        run.ui.confirm([action.text for action in actions])
    phase.go(walk, phases)
    return _show_up(walk)


def _show_pending(walk: Walk, actions: list[Any]) -> dict[str, Any]:
    ui, settings = walk.ui, walk.settings
    diffs: dict[str, dict[str, str]] = {}
    ui.foretell(actions)
    if walk.engine_answers:
        import lab
        from moorage.fleet.rollout.fleet import Fleet
        from moorage.fleet.rollout.operation import Wish

        running = [node.name for node in lab.nodes(settings, walk.client)]
        hosts = settings.nodes.hosts or tuple(running)
        if hosts and (settings.certs_dir / "ca.crt").exists():
            report = Fleet(settings, ui).run("trust", hosts, Wish(dry_run=True))
            diffs = {host: dict(files) for host, files in report.diffs.items()}
            for files in diffs.values():
                for text in files.values():
                    ui.diff_text(text)
    if not actions and not any(diffs.values()):
        ui.show("Nothing to do: everything is in place.")
    return {
        "ok": True,
        "dry_run": True,
        "actions": [
            {"text": a.text, "asks": a.asks, "path": a.path, "before": a.before, "after": a.after}
            for a in actions
        ],
        "diffs": diffs,
    }


def _show_up(walk: Walk) -> dict[str, Any]:
    from moorage.fleet import report

    ui, settings = walk.ui, walk.settings
    this_machine = [walk.this_machine] if walk.this_machine else []
    ui.show("")
    ui.present(report.host_parts([*this_machine, *walk.hosts], walk.runtimes))
    proven = not any(one.ok and one.unproven for one in [*this_machine, *walk.hosts])
    trusted = all(result.ok for result in walk.hosts)
    if walk.deployed is not None:
        from moorage.cluster.workload import telling

        image = settings.image_reference
        ui.present(telling.deployed(image, walk.deployed, changed=walk.changed))
    ok = trusted and (walk.deployed is None or walk.deployed.ok)
    typed = _next_commands(walk, trusted)
    if not trusted:
        ui.show("Some nodes do not trust the registry yet; their causes and cures are above.")
    elif not proven:
        ui.show("Everything is set up, but not all of it is proven; see above.")
    elif walk.changed:
        ui.show(f"{settings.image_reference} is pushed, and every node has pulled it.")
    else:
        ui.show("Nothing changed, nothing restarted: everything was already in place.")
    ui.show("Next:")
    for line in typed:
        ui.show(f"  {line}")
    return {
        "ok": ok,
        "proven": proven,
        "changed": walk.changed,
        "registry": f"https://{settings.registry_name}",
        "image": settings.image_reference,
        "phases": [
            {"title": done.title, "changed": done.changed, "seconds": done.seconds}
            for done in walk.done
        ],
        "this_machine": walk.this_machine.to_json() if walk.this_machine else None,
        "hosts": [result.to_json() for result in walk.hosts],
        "runtimes": walk.runtimes,
        "kubernetes": _kubernetes_told(walk),
        "next": typed,
    }


def _kubernetes_told(walk: Walk) -> dict[str, Any] | None:
    if walk.cluster is None:
        return None
    return {
        **walk.cluster.to_json(),
        "namespace": walk.settings.kubernetes.namespaces[0],
        **(walk.deployed.to_json() if walk.deployed is not None else {}),
    }


def _next_commands(walk: Walk, ok: bool) -> list[str]:
    failed = ",".join(result.host for result in walk.hosts if not result.ok)
    node = walk.nodes[0] if walk.nodes else "HOST"
    lines = [] if ok else [f"inv nodes.trust --hosts={failed}"]
    if not walk.settings.nodes.hosts:
        lines.append(f"inv lab.ssh {node}")
    if walk.cluster is not None and walk.deployed is not None:
        place = f"-n {walk.settings.kubernetes.namespaces[0]}"
        lines += [] if walk.deployed.ok else ["inv k8s.diagnose --fix"]
        lines += [
            f"{walk.cluster.command} get pods {place} -o wide",
            "inv k8s.secret --all --attach",
            "inv k8s.nodes",
        ]
    return [
        *lines,
        "inv registry.status --show-password",
        f"inv nodes.verify --hosts={node}",
        "inv down",
    ]


@command(
    help={"purge": "also delete keys, registry data, images and installed packages"}, lock=True
)
def down(run: Run, purge: bool = False, yes: bool = False) -> dict[str, Any]:
    """Take everything down again; issued keys and registry data stay unless purged.

    Example: inv down --purge
    Example: inv down --json
    """
    from moorage.walk import down as walk_down
    from moorage.walk import phase

    del yes
    walk = phase.Walk(run.settings, run.ui)
    if purge:
        run.ui.confirm([action.text for action in walk_down.purge_actions(walk)])
    phases = walk_down.PURGE_PHASES if purge else walk_down.PHASES
    phase.go(walk, phases)
    ok = all(result.ok for result in walk.hosts)
    kept = [] if purge else _kept(run)
    run.ui.show("Down." if walk.changed else "Nothing was up.")
    for line in kept:
        run.ui.show(f"  kept: {line}")
    return {
        "ok": ok,
        "changed": walk.changed,
        "phases": [
            {"title": done.title, "changed": done.changed, "seconds": done.seconds}
            for done in walk.done
        ],
        "this_machine": walk.this_machine.to_json() if walk.this_machine else None,
        "hosts": [result.to_json() for result in walk.hosts],
        "kept": kept,
    }


def _kept(run: Run) -> list[str]:
    from moorage.docker import apt

    settings = run.settings
    kept = [
        f"{folder} ({what})"
        for folder, what in (
            (settings.certs_dir, "keys and certificates"),
            (settings.registry_data, "the registry's images"),
        )
        if folder.exists()
    ]
    packages = apt.installed_by_us(settings)
    if packages:
        kept.append(f"packages {' '.join(packages)} (inv down --purge removes them)")
    return kept


@command(help={"hosts": "nodes to ask as well, a,b,c"})
def doctor(run: Run, hosts: str = "") -> dict[str, Any]:
    """Say what is missing or wrong on this machine and its nodes, each with its cure.

    Example: inv doctor --hosts=node1,node2
    Example: inv doctor --json
    """
    from moorage.walk import doctor as examination

    findings = examination.examine(run.settings, run.ui, hosts)
    run.ui.table(
        ["", "what", "found", "cure"],
        [[finding.mark, finding.what, finding.found, finding.cure] for finding in findings],
    )
    wrong = [finding for finding in findings if finding.state == "wrong"]
    missing = any(finding.state == "missing" for finding in findings)
    fine = "Nothing is wrong" + ("; each cure brings what is missing." if missing else ".")
    run.ui.show(f"{len(wrong)} to cure." if wrong else fine)
    return {"ok": not wrong, "findings": [finding.to_json() for finding in findings]}


@command()
def support(run: Run, hosts: str = "") -> dict[str, Any]:
    """Pack versions, settings, logs and findings for whoever helps you, with every secret out.

    Example: inv support
    Example: inv support --hosts=node1,node2
    """
    from moorage.configuration import origins
    from moorage.logs import support as packing
    from moorage.walk import doctor as examination

    settings = [one._asdict() for one in origins.settings_in(run.sources)]
    findings = [one.to_json() for one in examination.examine(run.settings, run.ui, hosts)]
    path, names = packing.write(
        run.settings, {"settings": settings, "findings": findings, "profile": run.settings.profile}
    )
    for name in names:
        run.ui.note(name)
    run.ui.show(f"wrote {path}; look through it before you send it")
    return {"ok": True, "path": str(path), "files": names}
