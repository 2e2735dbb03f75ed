"""Images in: the demo image built and pushed, any other pushed, and mirrored from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from moorage.errors import wrong_use
from moorage.tasks.command import Run, command

if TYPE_CHECKING:
    from moorage.images.outcome import ImageOutcome

_MOST_AT_ONCE = 64


@command(
    lock=True,
    help={"platform": "for these as one index, such as linux/amd64,linux/arm64; without an engine"},
)
def build(run: Run, platform: str = "", yes: bool = False) -> dict[str, Any]:
    """Build the demo image, serve_hostname, without a network in the container.

    It is for this machine's platform, or for those of image.platforms. What was built last is what
    image.push pushes.

    Example: inv image.build
    Example: inv image.build --platform=linux/amd64,linux/arm64
    """
    from functools import partial

    from moorage import platforms
    from moorage.docker import engine
    from moorage.images import demo

    del yes  # the command has read it
    settings = run.settings
    if platform:
        settings = demo.for_platforms(settings, platforms.parse(platform))
    run.ui.confirm([action.text for action in demo.pending(settings)])
    built = demo.build(settings, partial(engine.connect, settings), run.ui.progress)
    run.ui.show(f"{'built' if built.changed else 'unchanged'}: {built.reference}")
    run.ui.show(f"  {built.image_id}")
    if built.platforms:
        run.ui.show(f"  {', '.join(built.platforms)}; an OCI layout: {built.layout}")
    return {
        "ok": True,
        "changed": built.changed,
        "reference": built.reference,
        "image_id": built.image_id,
        "platforms": list(built.platforms),
        "layout": built.layout,
    }


@command(
    lock=True,
    positional=["names"],
    iterable=["names"],
    help={
        "names": "images of this machine's engine, archives, OCI layouts (else: the demo image)",
        "target": "NAME:TAG under which it goes, if only one image is given",
    },
)
def push(run: Run, names: list[str], target: str = "", yes: bool = False) -> dict[str, Any]:
    """Push images to the registry: the demo image, or any by name or path; by skopeo.

    The login is passed along and stored nowhere. An archive is one of `docker save`, or of OCI.

    Example: inv image.build image.push
    Example: inv image.push myapp:1.2 ./saved.tar ./layout
    Example: inv image.push ./saved.tar --target=team/app:2
    """
    del yes  # the command has read it
    if names:
        return _push_any(run, names, target)
    if target:
        raise wrong_use(
            "--target is for an image that is named", "inv image.push NAME --target=..."
        )
    return _push_demo(run)


def _push_demo(run: Run) -> dict[str, Any]:
    from functools import partial

    from moorage.docker import engine
    from moorage.images import demo

    settings = run.settings
    run.ui.confirm([action.text for action in demo.push_pending(settings)])
    pushed = demo.push(settings, partial(engine.connect, settings), run.ui.progress)
    run.ui.show(f"{'pushed' if pushed.changed else 'unchanged'}: {pushed.reference}")
    run.ui.show(f"  {pushed.digest}")
    return {
        "ok": True,
        "changed": pushed.changed,
        "reference": pushed.reference,
        "digest": pushed.digest,
    }


def _push_any(run: Run, names: list[str], target: str) -> dict[str, Any]:
    from moorage.images import outcome, pushing

    if target and len(names) > 1:
        raise wrong_use(f"--target is for one image, not {len(names)}", "inv image.push NAME")
    if target:
        from moorage.images import sources

        sources.target(run.settings, target)
    found = pushing.push(run.settings, names, target, run.ui)
    for one in found:
        if one.fault is None:
            run.ui.show(f"{'pushed' if one.changed else 'unchanged'}: {one.landed}")
            run.ui.show(f"  {one.digest}")
    run.ui.present(outcome.told(found))
    return outcome.document(found)


@command(
    lock=True,
    positional=["references"],
    help={
        "references": "a file with one reference per line; - is standard input",
        "from_cluster": "what the pods of the cluster run",
        "from_manifests": "what the pods of a file of Kubernetes' manifests run",
        "from_bundle": "what the loaded bundle holds",
        "platform": "this one alone, as linux/arm64 (else all of each image)",
        "authfile": "logins of the other registries, as skopeo login and podman login write them",
        "update": "a tag that leads to another image there now is moved here, too",
        "at_once": "how many images are copied at once",
        "dry_run": "say what would be copied and copy nothing",
    },
)
def mirror(
    run: Run,
    references: str = "",
    from_cluster: bool = False,
    from_manifests: str = "",
    from_bundle: bool = False,
    platform: str = "",
    authfile: str = "",
    update: bool = False,
    at_once: int = 6,
    dry_run: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Mirror images of other registries into this one, digests as they are; by skopeo.

    docker.io/library/nginx:1 lands as my.registry.io/docker.io/library/nginx:1, and
    nodes.trust --mirror=docker.io sets nodes up for it. The same command again copies what is
    missing.

    Example: inv image.mirror images.txt
    Example: inv image.mirror --from-cluster --platform=linux/amd64
    """
    from moorage.catalogue import lists
    from moorage.images import mirroring, outcome, skopeo, upstream

    del yes  # the command has read it
    if not (references or from_cluster or from_manifests or from_bundle):
        raise wrong_use("no images are named", "inv image.mirror LIST, or --from-cluster")
    if not 1 <= at_once <= _MOST_AT_ONCE:
        raise wrong_use(
            f"invalid --at-once={at_once}: 1 to {_MOST_AT_ONCE}", "inv image.mirror LIST"
        )
    wish = mirroring.MirrorWish(upstream.platform(platform), update, at_once, dry_run)
    authfile = skopeo.readable(authfile)
    found = [*lists.of_file(references)] if references else []
    found += lists.of_manifests(from_manifests) if from_manifests else []
    found += lists.of_cluster(run.settings, run.ui) if from_cluster else []
    found += lists.of_bundle(run.settings) if from_bundle else []
    wanted = lists.unique(run.settings, found)
    outcomes = mirroring.mirror(run.settings, wanted, authfile, wish, run.ui)
    for one in outcomes:
        if one.fault is None and one.changed:
            run.ui.show(f"{'would copy' if dry_run else 'mirrored'}: {one.landed}")
    run.ui.present(outcome.told(outcomes))
    said = outcome.document(outcomes)
    run.ui.show(_counted(outcomes, dry_run=dry_run))
    return {**said, "changed": said["changed"] and not dry_run}


def _counted(outcomes: list[ImageOutcome], *, dry_run: bool) -> str:
    failed = sum(one.fault is not None for one in outcomes)
    changed = sum(one.changed for one in outcomes)
    verb = "to be mirrored" if dry_run else "mirrored"
    unchanged = len(outcomes) - failed - changed
    images = "1 image" if len(outcomes) == 1 else f"{len(outcomes)} images"
    return f"{images}: {changed} {verb}, {unchanged} unchanged, {failed} failed"


namespace = Collection("image", build, push, mirror)
