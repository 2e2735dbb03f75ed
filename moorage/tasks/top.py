"""The whole walk: up, down, doctor."""

from moorage.tasks.command import Run, command


@command(help={"dry_run": "print every change as a diff and change nothing"})
def up(run: Run, yes: bool = False, dry_run: bool = False) -> object:
    """Stand everything up: registry, image, lab nodes that trust it and pull from it.

    Example: inv up --yes
    """
