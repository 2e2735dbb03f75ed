"""Which images Moorage pulled itself and may therefore remove; a pulled image carries no label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage import references
from moorage.files import locked_beside, private_folder, write_atomically

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.settings import Settings


def pull(settings: Settings, client: DockerClient, reference: str) -> None:
    """Pull ``reference``, and note that it was us. Raises docker.errors.APIError."""
    from docker.errors import APIError

    # A failure comes with status 200, as an event; `images.pull` of the SDK passes over it and
    # returns whatever older image has that name.
    for event in client.api.pull(*split(reference), stream=True, decode=True):
        if "error" in event:
            raise APIError(str(event["error"]), explanation=str(event["error"]))
    note(settings, reference)


def note(settings: Settings, reference: str) -> None:
    """Note that ``reference`` was brought by us; images are brought by several threads at once."""
    private_folder(settings.state)
    with locked_beside(settings.state / "pulled"):
        _write(settings, [*dict.fromkeys([*ours(settings), reference])])


def ours(settings: Settings) -> list[str]:
    """The references we pulled, oldest first."""
    try:
        return (settings.state / "pulled").read_text().split()
    except FileNotFoundError:
        return []


def forget(settings: Settings, client: DockerClient) -> bool:
    """Removes them, but for those that a container needs. Returns whether one was removed."""
    from docker.errors import APIError, ImageNotFound

    kept = []
    for reference in ours(settings):
        try:
            client.images.remove(reference)
        except ImageNotFound:
            continue
        except APIError:  # in use
            kept.append(reference)
    changed = kept != ours(settings)
    if changed:
        _write(settings, kept)
    return changed


def split(reference: str) -> tuple[str, str]:
    """(repository, tag or digest); the SDK would pull every tag of a reference without one."""
    name, tag, digest = references.split(reference)
    return name, digest or tag or "latest"


def _write(settings: Settings, references: list[str]) -> None:
    path = private_folder(settings.state) / "pulled"
    write_atomically(path, "".join(f"{name}\n" for name in references).encode())
