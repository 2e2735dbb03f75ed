"""The demo image."""

from __future__ import annotations

from typing import Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command


@command(lock=True)
def build(run: Run) -> dict[str, Any]:
    """Build the demo image, serve_hostname, without a network in the container.

    Example: inv image.build
    Example: inv image.build --json
    """
    from moorage import images
    from moorage.docker import engine

    built = images.build(run.settings, engine.connect(run.settings), run.ui)
    run.ui.show(f"{'built' if built.changed else 'unchanged'}: {built.reference}")
    run.ui.show(f"  {built.image_id}")
    return {
        "ok": True,
        "changed": built.changed,
        "reference": built.reference,
        "image_id": built.image_id,
    }


@command(lock=True)
def push(run: Run) -> dict[str, Any]:
    """Push the demo image to the registry; the login is passed along and stored nowhere.

    Example: inv image.build image.push
    Example: inv image.push --json
    """
    from moorage import images
    from moorage.docker import engine

    pushed = images.push(run.settings, engine.connect(run.settings), run.ui)
    run.ui.show(f"{'pushed' if pushed.changed else 'unchanged'}: {pushed.reference}")
    run.ui.show(f"  {pushed.digest}")
    return {
        "ok": True,
        "changed": pushed.changed,
        "reference": pushed.reference,
        "digest": pushed.digest,
    }


namespace = Collection("image", build, push)
