"""Which images shall be mirrored: of a list, of Kubernetes' manifests, of a cluster's pods.

Every reference is judged before any image is asked for: one that is none ends the command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from moorage import references
from moorage.catalogue import usage
from moorage.errors import Refused
from moorage.files import user_path
from moorage.references import Reference
from moorage.supply import loaded

if TYPE_CHECKING:
    from moorage.settings import Settings
    from moorage.ui import UI

_MOST_BYTES = 16 << 20


def of_file(path: str) -> list[Reference]:
    """A reference per line; ``#`` begins a comment; ``-`` is standard input.

    Raises Refused: ``unreadable-list``, or ``bad-reference`` with file and line.
    """
    shown = "standard input" if path == "-" else path
    lines = _text(path, shown).splitlines()
    words = ((number, _without_comment(line)) for number, line in enumerate(lines, 1))
    found = [
        references.parse(word, place=f"{shown}, line {number}") for number, word in words if word
    ]
    if not found:
        raise _unreadable(shown, "it names no image")
    return found


def of_manifests(path: str) -> list[Reference]:
    """What the pods of Kubernetes' manifests run: any kind with pods or a pod template in it.

    Raises Refused: ``unreadable-list``, or ``bad-reference`` with file, kind and name.
    """
    import yaml

    text = _text(path, path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = list(yaml.load_all(text, loader))
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        why = " ".join(str(problem).split())
        raise _unreadable(
            path, f"it is not YAML: {why}", "render a chart first: helm template"
        ) from None
    objects = [one for one in documents if isinstance(one, dict)]
    try:
        found = [image for one in objects for image in _of_object(one, f"{path}, ")]
    except RecursionError:
        raise _unreadable(path, "an object in it holds itself, by an alias") from None
    if not found:
        raise _unreadable(
            path, "no pod in it runs an image", "name a file with pods, as helm template writes it"
        )
    return found


def of_cluster(settings: Settings, ui: UI) -> list[Reference]:
    """What the pods of the cluster run, by what their specifications say.

    Raises MoorageError if there is no cluster, or it does not answer.
    """
    from moorage.cluster.api import paths
    from moorage.cluster.login import access

    api = access.connect(settings)
    ui.note(f"cluster: {api.where}")
    with access.typed_for(api):
        pods = list(api.items(paths.all_of("Pod")))
    found: list[Reference] = []
    for pod in pods:
        try:
            found += _of_object({"kind": "Pod", **pod}, "")
        except Refused as problem:  # the kubelet cannot pull it either
            ui.warn(f"{problem.message}: left out")
    return found


def of_bundle(settings: Settings) -> list[Reference]:
    """What the loaded bundle holds. Raises Refused (``unreadable-list``) if that is nothing."""
    found = [references.parse(name) for name in loaded.held(settings.root)]
    if not found:
        raise _unreadable(
            "the bundle",
            "none is loaded, or no image was asked for when it was made",
            "inv bundle.load FILE; inv bundle.save FILE --images=LIST makes one",
        )
    return found


def unique(settings: Settings, found: Iterable[Reference]) -> list[Reference]:
    """Each image once, those of our own registry left out: they are there.

    Raises Refused (``bad-setting``) if images of two registries would land on one path.
    """
    images = [one for one in dict.fromkeys(found) if one.registry != settings.registry_name]
    _require_apart(settings, images)
    return images


def _require_apart(settings: Settings, images: Iterable[Reference]) -> None:
    """By the name without tag: nodes could not tell whose image a tag of it is."""
    first: dict[str, Reference] = {}
    for one in images:
        try:
            path = references.landing(settings, one).name
        except Refused:  # a path that is too long is that image's own fault, and said with it
            continue
        other = first.setdefault(path, one)
        if other.name != one.name:
            raise Refused(
                "bad-setting",
                f"{other.name} and {one.name} would both land as {path}",
                cause=f"nodes.mirror_path is {settings.nodes.mirror_path!r}, which does not keep"
                f" {other.registry} and {one.registry} apart",
                cure="set nodes.mirror_path to '{registry}' in invoke.yaml, or leave one of the two"
                " out of the list",
            )


def _of_object(document: Mapping[str, Any], before: str) -> Iterator[Reference]:
    spec = {key: value for key, value in document.items() if key != "status"}
    metadata = document.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    place = f"{before}{document.get('kind') or 'an object'} {name}".rstrip()
    for word in usage.of_objects([spec]):
        if word:
            yield references.parse(word, place=place)


def _without_comment(line: str) -> str:
    """A reference has no ``#`` in it, so one always begins a comment."""
    return line.partition("#")[0].strip()


def _text(path: str, shown: str) -> str:
    try:
        if path == "-":
            content = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with user_path(path).open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise _unreadable(shown, f"it has more than {_MOST_BYTES >> 20} MB")
        return content.decode("utf-8-sig")
    except OSError as problem:
        raise _unreadable(shown, problem.strerror or str(problem)) from None
    except UnicodeDecodeError:
        raise _unreadable(shown, "it is not UTF-8 text") from None


def _unreadable(shown: str, why: str, cure: str = "") -> Refused:
    return Refused(
        "unreadable-list",
        f"no images can be read from {shown}",
        cause=why,
        cure=cure or "name a file with one reference per line, such as docker.io/library/nginx:1",
        path="" if shown == "standard input" else shown,
    )
