"""From a bare machine to an image pulled on every node."""

from __future__ import annotations

from moorage.actions import Action
from moorage.errors import MoorageError
from moorage.walk import cluster
from moorage.walk.phase import Phase, Walk, raise_fault


def _engine_pending(walk: Walk) -> list[Action]:
    from moorage.docker import engine

    return engine.pending(walk.settings)


def _engine(walk: Walk) -> bool:
    from moorage.docker import engine

    if not engine.pending(walk.settings):
        return False
    engine.ensure(walk.settings, walk.ui.progress)
    return True


def _certificates_pending(walk: Walk) -> list[Action]:
    from moorage.pki import registry as pki

    return pki.pending(walk.settings)


def _certificates(walk: Walk) -> bool:
    from moorage.pki import registry as pki

    issued = pki.issue(walk.settings)
    walk.ui.present(issued.notes)
    return issued.changed


def _registry_pending(walk: Walk) -> list[Action]:
    from moorage import registry
    from moorage.docker import debian

    actions = registry.pending(walk.settings, walk.client if walk.engine_answers else None)
    return [*debian.pending(walk.settings), *actions] if actions else []


def _registry(walk: Walk) -> bool:
    from moorage import registry

    return registry.up(walk.settings, walk.client, walk.ui).changed


def _registry_and_builds(walk: Walk) -> bool:
    """The slow part of the nodes and the image need nothing of the registry: all begin at once."""
    import lab
    from moorage.images import demo

    if not walk.settings.nodes.hosts:
        walk.lab_images = lab.build(walk.settings, walk.client, walk.ui.progress)
    walk.image = demo.begin(walk.settings, walk.client, walk.ui.progress)
    return _registry(walk)


def _this_machine_pending(walk: Walk) -> list[Action]:
    from moorage.fleet.rollout import this_machine

    return this_machine.pending_this_machine(walk.settings)


def _this_machine(walk: Walk) -> bool:
    from moorage.fleet.rollout import this_machine

    walk.this_machine = this_machine.trust_this_machine(walk.settings, walk.ui)
    raise_fault(walk.this_machine)
    return walk.this_machine.status == "changed"


def _image_pending(walk: Walk) -> list[Action]:
    from moorage.docker import building
    from moorage.images import demo, skopeo
    from moorage.images.demo import index

    reference = walk.settings.image_reference
    platforms = walk.settings.image.platforms
    if platforms:
        actions = [*demo.pending(walk.settings), *skopeo.pending()]
        if index.current(walk.settings) is None:
            actions.append(Action(f"build {reference} for {', '.join(platforms)} and push it"))
        return list(dict.fromkeys([*actions, *_held_pending(walk)]))
    is_built = walk.engine_answers and building.exists(walk.client, reference)
    actions = [] if is_built else [Action(f"build {reference} and push it")]
    return [*actions, *demo.replacing(walk.settings), *_held_pending(walk)]


def _image(walk: Walk) -> bool:
    from moorage.images import demo

    if walk.image is None:
        built = demo.build(walk.settings, lambda: walk.client, walk.ui.progress)
    else:
        with walk.ui.progress(f"building {walk.settings.image_reference}"):
            built = walk.image.result()
    pushed = demo.push(walk.settings, lambda: walk.client, walk.ui.progress)
    return _held(walk) or built.changed or pushed.changed


def _held_pending(walk: Walk) -> list[Action]:
    from moorage.images import skopeo
    from moorage.supply import loaded

    found = loaded.held(walk.settings.root)
    if not found:
        return []
    what = Action(f"copy the bundle's {len(found)} images into the registry, if they are not there")
    return [*skopeo.pending(), what]


def _held(walk: Walk) -> bool:
    """The images that were asked for when the loaded bundle was made."""
    from moorage.catalogue import lists
    from moorage.docker import apt
    from moorage.images import mirroring, outcome, skopeo
    from moorage.supply import loaded

    supply = loaded.current(walk.settings.root)
    if supply is None or not supply.manifest.images:
        return False
    if skopeo.pending():  # it was agreed to before the first phase
        apt.install([skopeo.PACKAGE], walk.ui.progress, walk.settings)
    wanted = lists.unique(walk.settings, lists.of_bundle(walk.settings))
    wish = mirroring.MirrorWish(update=supply.manifest.update)
    found = mirroring.mirror(walk.settings, wanted, "", wish, walk.ui)
    rows = outcome.causes(found)
    if rows:
        walk.ui.present(list(outcome.told(found))[1:])  # the first is said by what is raised
        raise MoorageError.of(rows[0].fault)
    return any(one.changed for one in found)


def _nodes_pending(walk: Walk) -> list[Action]:
    import lab

    return [] if walk.settings.nodes.hosts else lab.pending(walk.settings)


def _nodes(walk: Walk) -> bool:
    import lab

    if walk.settings.nodes.hosts:
        walk.nodes = walk.settings.nodes.hosts
        walk.ui.note(f"{len(walk.nodes)} hosts from nodes.hosts in invoke.yaml; no lab is made")
        return False
    if walk.lab_images is not None:
        with walk.ui.progress("building the lab's nodes"):
            walk.lab_images.result()
    before = {node.container_id for node in lab.nodes(walk.settings, walk.client)}
    nodes = lab.up(walk.settings, walk.client, walk.ui, None)
    walk.nodes = tuple(node.name for node in nodes)
    return {node.container_id for node in nodes} != before


def _trust_pending(walk: Walk) -> list[Action]:
    # The lab's nodes are ours; hosts of the user's are a change outside the repository.
    hosts = walk.settings.nodes.hosts
    return [Action(f"make {host} trust the registry, over SSH", asks=True) for host in hosts]


def _trust(walk: Walk) -> bool:
    from moorage.fleet.rollout.fleet import Fleet

    report = Fleet(walk.settings, walk.ui).run("trust", walk.nodes)
    report.stop_if_interrupted()
    walk.hosts = list(report.hosts)
    walk.runtimes = dict(report.runtimes)
    return any(result.status != "unchanged" for result in walk.hosts)


def _nothing_pending(_walk: Walk) -> list[Action]:
    return []


def _verify(walk: Walk) -> bool:
    from dataclasses import replace

    from moorage import images

    assert walk.this_machine is not None  # noqa: S101 - the walk's order; for the type checker
    seconds = images.pull(walk.settings, walk.client, walk.ui.progress)
    # The agent has proven the trust: a pull over loopback would succeed without any.
    walk.this_machine = replace(walk.this_machine, pull_seconds=seconds)
    return False


_ENGINE = Phase("engine", _engine_pending, _engine)
_CERTIFICATES = Phase("certificates", _certificates_pending, _certificates)
_REGISTRY = Phase("registry", _registry_pending, _registry_and_builds)
_THIS_MACHINE = Phase("this machine", _this_machine_pending, _this_machine)
_IMAGE = Phase("image", _image_pending, _image)
_NODES = Phase("nodes", _nodes_pending, _nodes)
_TRUST = Phase("trust", _trust_pending, _trust)
_VERIFY = Phase("verify", _nothing_pending, _verify)

REGISTRY_PHASES = (
    _ENGINE,
    _CERTIFICATES,
    Phase("registry", _registry_pending, _registry),
    _THIS_MACHINE,
)

PHASES = (
    _ENGINE,
    _CERTIFICATES,
    _REGISTRY,
    _THIS_MACHINE,
    _IMAGE,
    _NODES,
    _TRUST,
    _VERIFY,
)

# The programs come first of what is slow: where they cannot be had, no node is made. The nodes are
# a cluster before they trust, so that what is written on them is written once.
KUBERNETES_PHASES = (
    _ENGINE,
    _CERTIFICATES,
    cluster.PROGRAMS,
    _REGISTRY,
    _THIS_MACHINE,
    _IMAGE,
    _NODES,
    cluster.CLUSTER,
    _TRUST,
    _VERIFY,
    cluster.WORKLOAD,
)
