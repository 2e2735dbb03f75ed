"""Images built and found through the engine's API, the same way for every room."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.errors import MoorageError

if TYPE_CHECKING:
    from docker import DockerClient

    from moorage.output import Update

_STEP = re.compile(r"Step (\d+)/(\d+) :")


def exists(client: DockerClient, reference: str) -> bool:
    """Whether the engine has an image of that name."""
    return image_id(client, reference) != ""


def image_id(client: DockerClient, reference: str) -> str:
    """The id of the image of that name; empty if there is none."""
    from docker.errors import ImageNotFound

    try:
        return str(client.images.get(reference).id)
    except ImageNotFound:
        return ""


class ListedImage(NamedTuple):
    """An image as the engine's list has it; ``names``: none for one that lost its own."""

    id: str
    names: tuple[str, ...]


def listed(
    client: DockerClient,
    name: str = "",
    *,
    layers: bool = False,
    filters: Mapping[str, Any] | None = None,
) -> list[ListedImage]:
    """The images of a name, or all, that pass ``filters``; with ``layers``, parts of others too.

    By one question: the SDK's ``images.list`` asks for each image again and fails for one that has
    been removed meanwhile.
    """
    rows = client.api.images(name or None, all=layers, filters=dict(filters or {}))
    nameless = "<none>:<none>"  # of engines before 24
    return [
        ListedImage(row["Id"], tuple(tag for tag in row["RepoTags"] or () if tag != nameless))
        for row in rows
    ]


def build(
    client: DockerClient,
    files: Mapping[str, bytes],
    *,
    tag: str,
    replace: bool,
    labels: Mapping[str, str],
    title: str,
    update: Update,
    arguments: Mapping[str, str] | None = None,
    network: str = "host",
) -> str:
    """Builds an image from ``files`` (path -> content; ``Dockerfile`` among them). Returns its id.

    ``replace``: the image becomes ``tag``, whatever had that name. Else the name says all that
    goes in, and one that came meanwhile stays, and is returned: another checkout or profile may
    build the same at this moment, and a container would be made again for another id.

    ``update`` is told the steps done and their total. Steps run in the network of the engine's
    host, so that a mirror it reaches is reached here too; or in ``network``. Progress is the
    caller's, since builds run beside each other.
    Raises MoorageError with the failing step's last words.
    """
    said: list[str] = []
    built = ""
    events = client.api.build(
        fileobj=_context(files),
        custom_context=True,
        tag=tag if replace else None,
        labels=dict(labels),
        buildargs=dict(arguments or {}),
        network_mode=network,
        use_config_proxy=True,
        rm=True,
        forcerm=True,
        decode=True,
    )
    for event in events:
        text = str(event.get("stream", ""))
        said.append(text)
        step = _STEP.match(text)
        if step:
            update(done=int(step[1]) - 1, total=int(step[2]))
        built = event.get("aux", {}).get("ID", built)
        if "error" in event:
            raise _failed(title, "".join(said), str(event["error"]))
    if not replace and not built:
        raise _failed(title, "", "the engine does not say which image it has built")
    return built if replace else _named(client, built, tag)


def _named(client: DockerClient, built: str, tag: str) -> str:
    """The id of the image of that name, which is ``built`` unless there was one by now."""
    from docker.errors import APIError

    theirs = image_id(client, tag)
    if not theirs:
        repository, _, version = tag.rpartition(":")
        client.images.get(built).tag(repository, version)
        return built
    if theirs != built:
        with contextlib.suppress(APIError):
            client.images.remove(built)
    return theirs


def imported_id(answer: str) -> str:
    """The image id in the engine's answer to an import: the last of its JSON lines."""
    status = ""
    for line in answer.splitlines():
        event = json.loads(line)
        if "error" in event:
            raise MoorageError(
                "import-failed", "the engine refused the image", cause=str(event["error"])
            )
        status = str(event.get("status", status))
    return status


def _context(files: Mapping[str, bytes]) -> io.BytesIO:
    """A tar that is the same for the same files, so that the engine's cache knows it again."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def _failed(title: str, said: str, error: str) -> MoorageError:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    lines = [line for line in plain.splitlines() if line.strip()]
    # apt's own errors tell more than the step's exit code.
    telling = [line for line in lines if line.startswith(("E:", "error:"))][-2:] or lines[-2:]
    # "The command '/bin/sh -c <the whole step>' returned a non-zero code: 100"
    error = re.sub(r"^The command '.*' (?=returned)", "the step ", error, flags=re.DOTALL)
    return MoorageError(
        "build-failed",
        f"building {title} failed",
        cause="\n".join([*telling, error]),
        cure=(
            "is a Debian mirror reachable from the engine? lab.mirror in invoke.yaml names another"
        ),
    )
