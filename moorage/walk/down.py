"""Gone again: this machine as it was. Keys and registry data stay unless purged."""

from __future__ import annotations

import shutil

from moorage.actions import Action
from moorage.walk.phase import Phase, Walk, raise_fault


def _none(_walk: Walk) -> list[Action]:
    return []


def _engine_needed(walk: Walk) -> bool:
    """Starts a stopped engine again where containers of ours may be left in it.

    After a reboot, or a dockerd that was ended by hand, they can't be removed otherwise.
    """
    from moorage.docker import engine

    if walk.engine_answers:
        return False
    if not engine.started_by_us(walk.settings):
        walk.ui.note("no Docker engine answers, and Moorage started none: nothing to remove in it")
        return False
    engine.ensure(walk.settings, walk.ui.progress)
    return True


def _this_machine(walk: Walk) -> bool:
    from moorage import registry
    from moorage.fleet.rollout import this_machine

    if walk.engine_answers and this_machine.trusts_anothers(walk.settings):
        other = registry.of_another_checkout(walk.settings, walk.client)
        if other:
            name = walk.settings.registry_name
            walk.ui.note(f"this machine goes on trusting {name}: the checkout in {other} serves it")
            return False
    walk.this_machine = this_machine.untrust_this_machine(walk.settings, walk.ui)
    raise_fault(walk.this_machine)
    return walk.this_machine.status == "changed"


def _nodes(walk: Walk) -> bool:
    from moorage.fleet.rollout.fleet import Fleet

    if walk.settings.nodes.hosts:
        report = Fleet(walk.settings, walk.ui).run("untrust", walk.settings.nodes.hosts)
        report.stop_if_interrupted()
        walk.hosts = list(report.hosts)
        walk.runtimes = dict(report.runtimes)
    if not walk.engine_answers:
        return any(result.status == "changed" for result in walk.hosts)
    return _lab_gone(walk)


def _lab_gone(walk: Walk, *, images: bool = False) -> bool:
    import lab
    from moorage.pki.roster import Roster
    from moorage.rotation import rotation

    removed = lab.down(walk.settings, walk.client, walk.ui, images=images)
    Roster(walk.settings).drop(*removed.nodes)  # the agents that stayed there are gone with them
    rotation.let_cluster_go(walk.settings, removed.cluster)
    return removed.changed


def _registry(walk: Walk) -> bool:
    from moorage import registry

    if walk.settings.registry.external or not walk.engine_answers:
        return False
    return registry.down(walk.settings, walk.client, walk.ui, leave_others=True)


def _engine(walk: Walk) -> bool:
    from moorage.docker import engine

    return engine.stop(walk.settings, walk.ui)


def _purge_engine(walk: Walk) -> bool:
    from moorage import registry
    from moorage.docker import building

    if not walk.engine_answers:
        return False
    if not walk.settings.registry.external:
        registry.down(walk.settings, walk.client, walk.ui, purge=True, leave_others=True)
    _lab_gone(walk, images=True)
    label = f"io.moorage.project={walk.settings.home}"
    for image in building.listed(walk.client, filters={"label": label}):
        for name in (*image.names, image.id):
            _forget_image(walk, name)
    return True


def _forget_image(walk: Walk, name: str) -> None:
    import docker.errors

    try:
        walk.client.images.remove(name)
    except docker.errors.ImageNotFound:
        pass
    except docker.errors.APIError as problem:
        walk.ui.warn(f"image {name} is kept: {problem.explanation}")


def _purge_files(walk: Walk) -> bool:
    from moorage.docker import apt
    from moorage.supply import loaded
    from moorage.upkeep import installing

    if (supply := loaded.current(walk.settings.root)) is not None:
        walk.ui.note(
            f"the unpacked bundle stays in {supply.folder}; inv bundle.load takes it again"
        )
    if installing.remove(walk.settings):
        walk.ui.note("removed the timer of inv upkeep")
    packages = apt.installed_by_us(walk.settings)
    if packages:
        apt.remove(packages, walk.ui, walk.settings)
    from moorage.registry.caches import upstreams

    caches = upstreams.stores(walk.settings)
    folders = (
        walk.settings.certs_dir,
        walk.settings.registry_data,
        caches,
        walk.settings.state,
    )
    for folder in folders:
        if folder.exists():
            _remove_tree(walk, folder)
    return True


def _remove_tree(walk: Walk, folder: object) -> None:
    from pathlib import Path

    from moorage.commands import run

    path = Path(str(folder))
    try:
        shutil.rmtree(path)
    except PermissionError:
        # The registry's container may have written as another user.
        run(["rm", "-rf", "--one-file-system", str(path)], root=True)
    walk.ui.note(f"removed {path}")


PHASES = (
    Phase("engine, to clean up in it", _none, _engine_needed),
    Phase("this machine", _none, _this_machine),
    Phase("nodes", _none, _nodes),
    Phase("registry", _none, _registry),
    Phase("engine", _none, _engine),
)

PURGE_PHASES = (
    *PHASES[:-1],
    Phase("images and registry data", _none, _purge_engine),
    PHASES[-1],
    Phase("keys, state and packages", _none, _purge_files),
)


def purge_actions(walk: Walk) -> list[Action]:
    """What a purge destroys, to be agreed to."""
    from moorage.docker import apt
    from moorage.upkeep import installing

    settings = walk.settings
    packages = apt.installed_by_us(settings)
    actions = [
        Action(f"delete every key and certificate in {settings.certs_dir}", asks=True),
        Action(f"delete the registry's data in {settings.registry_data}", asks=True),
        Action("delete the images that Moorage built", asks=True),
    ]
    if installing.present(settings):
        actions.append(Action("remove the timer of inv upkeep", asks=True))
    if packages:
        actions.append(
            Action(f"remove the packages that Moorage installed: {' '.join(packages)}", asks=True)
        )
    return actions
