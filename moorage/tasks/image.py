"""The demo image."""

from __future__ import annotations

from typing import Any

from invoke.collection import Collection

from moorage.tasks.command import Run, command


@command(lock=True)
def build(run: Run) -> dict[str, Any]:
    """Build serve_hostname, a service that answers its host name.

    Example: inv image.build
    """
    from moorage import engine, images

    built = images.build(run.settings, engine.connect(run.settings), run.ui)
    run.ui.show(f"{built.reference} {built.image_id}" + ("" if built.changed else " (unchanged)"))
    return {
        "ok": True,
        "reference": built.reference,
        "image_id": built.image_id,
        "changed": built.changed,
    }


@command(lock=True)
def push(run: Run) -> dict[str, Any]:
    """Push serve_hostname to the registry; the login goes with the call and is written nowhere.

    Example: inv image.build image.push
    """
    from moorage import engine, images

    pushed = images.push(run.settings, engine.connect(run.settings), run.ui)
    run.ui.show(f"{pushed.reference}@{pushed.digest}" + ("" if pushed.changed else " (unchanged)"))
    return {
        "ok": True,
        "reference": pushed.reference,
        "digest": pushed.digest,
        "changed": pushed.changed,
    }


namespace = Collection("image", build, push)
