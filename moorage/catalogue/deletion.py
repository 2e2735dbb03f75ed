"""Deletes tags and manifests over HTTPS, by the registry itself, each as little as can be.

Distribution 2.8 takes every tag of a digest along, and cannot delete one tag alone (400); 3 can.
There, a tag is first put on a manifest made for that purpose, which is then deleted.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from moorage.catalogue.listing import Repository
from moorage.catalogue.retention import TagVerdict, subject_of
from moorage.errors import MoorageError, Refused
from moorage.registry import client

if TYPE_CHECKING:
    from moorage.registry.logins.credentials import Credentials
    from moorage.settings import Settings

_EMPTY = b"{}"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_TRIES, _AGAIN_SECONDS = 20, 0.1


@dataclass(frozen=True)
class DeletionStep:
    """One deletion: a tag alone, or with ``tag`` "" a manifest and every tag of it (``tags``)."""

    repository: str
    digest: str
    tag: str = ""
    tags: tuple[str, ...] = ()


def steps(verdicts: Iterable[TagVerdict], held: Sequence[Repository]) -> list[DeletionStep]:
    """What to delete, in an order that may be cut off anywhere: an index before its children, an
    image before what is said of it. Pure."""
    going = [one for one in verdicts if one.goes]
    tags = [DeletionStep(one.repository, one.digest, one.tag) for one in going if not one.whole]
    whole = dict.fromkeys(
        (one.repository, one.digest)
        for one in sorted(going, key=lambda one: (not one.tag, bool(subject_of(one.tag))))
        if one.whole
    )
    parents = _parents(held)
    tagged = {one.name: _by_digest(one) for one in held}

    def depth(place: tuple[str, str]) -> int:
        return max((1 + depth(parent) for parent in parents.get(place, ())), default=0)

    return [
        *tags,
        *(
            DeletionStep(name, digest, tags=tagged.get(name, {}).get(digest, ()))
            for name, digest in sorted(whole, key=depth)
        ),
    ]


def _by_digest(held: Repository) -> dict[str, tuple[str, ...]]:
    """A digest -> its tags, sorted: of a repository with thousands, each is looked at once."""
    found: dict[str, list[str]] = {}
    for tag, link in sorted(held.tags.items()):
        found.setdefault(link.digest, []).append(tag)
    return {digest: tuple(tags) for digest, tags in found.items()}


def _parents(held: Sequence[Repository]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """A manifest -> the indexes of its repository that name it."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for one in held:
        for digest, manifest in one.manifests.items():
            for child in manifest.manifest.children:
                found.setdefault((one.name, child), []).append((one.name, digest))
    return found


def of_reference(held: Repository, tag: str, digest: str) -> tuple[list[DeletionStep], list[str]]:
    """What deletes one tag, or one digest with its tags -> (the steps, what to warn of). Pure.

    Raises Refused: ``no-such-image``, ``image-part-of`` for a child of an index that stays.
    """
    found = digest or (held.tags[tag].digest if tag in held.tags else "")
    if not found or (digest and digest not in held.manifests):
        raise Refused(
            "no-such-image",
            f"the registry has no image {held.name}{'@' + digest if digest else ':' + tag}",
            cause=f"it has {', '.join(sorted(held.tags)[-5:]) or 'no tag'} of {held.name}",
            cure=f"inv images.list {held.name}",
        )
    tags = _by_digest(held).get(found, ())
    parents = sorted(d for d, one in held.manifests.items() if found in one.manifest.children)
    others = [name for name in tags if name != tag]
    if digest and parents:
        raise Refused(
            "image-part-of",
            f"{held.name}@{digest} is a part of another image, and stays",
            cause=f"the index {parents[0]} names it; without it that index cannot be pulled",
            cure=f"inv images.delete {held.name}@{parents[0]} deletes the whole",
        )
    if tag and (others or parents):
        rest = f"also {', '.join(others)}" if others else f"a part of {parents[0]}"
        return [DeletionStep(held.name, found, tag)], [f"{found} stays: it is {rest}"]
    warnings = [f"these tags go with it: {', '.join(others)}"] if others else []
    return _whole(held, found), warnings


def _whole(held: Repository, digest: str) -> list[DeletionStep]:
    """The manifest, then what no other manifest and no tag of the repository needs of it."""
    found, waiting = [digest], [digest]
    while waiting:
        at = waiting.pop()
        known = held.manifests[at].manifest.children if at in held.manifests else ()
        said = [link.digest for tag, link in held.tags.items() if subject_of(tag) == at]
        said += [d for d, one in held.manifests.items() if one.manifest.subject == at]
        for other in (*known, *said):
            if other in held.manifests and other not in found and _free(held, other, found):
                found.append(other)
                waiting.append(other)
    tags = _by_digest(held)
    return [DeletionStep(held.name, one, tags=tags.get(one, ())) for one in found]


def _free(held: Repository, digest: str, gone: Sequence[str]) -> bool:
    """Whether nothing but what is ``gone`` needs the manifest."""
    tagged = any(
        link.digest == digest and subject_of(tag) not in gone for tag, link in held.tags.items()
    )
    parents = (d for d, one in held.manifests.items() if digest in one.manifest.children)
    return not tagged and all(parent in gone for parent in parents)


def carry_out(settings: Settings, login: Credentials, step: DeletionStep) -> None:
    """One step; what is gone already is fine. Raises MoorageError (``delete-refused``)."""
    if step.tag:
        _untag(settings, login, step)
        return
    if not _delete(settings, login, step.repository, step.digest):
        for tag in step.tags:
            _untag_if_left(settings, login, DeletionStep(step.repository, step.digest, tag))


def _untag_if_left(settings: Settings, login: Credentials, step: DeletionStep) -> None:
    """Distribution deletes a manifest first and its tags then: cut off in between, or amid the push
    of another tag (it answers 500), it leaves tags that name nothing, and that stay for ever."""
    for _ in range(_TRIES):
        if not _names_nothing(settings, login, step):
            return
        _untag(settings, login, step)
        time.sleep(_AGAIN_SECONDS)
    raise MoorageError(
        "delete-refused",
        f"the tag {step.repository}:{step.tag} is left, and names nothing",
        cause="the registry deletes no tag while it cannot read another one of that repository",
        cure="inv registry.verify names what is damaged; then the same deletion again",
    )


def _names_nothing(settings: Settings, login: Credentials, step: DeletionStep) -> bool:
    tags = client.ask(settings, f"/v2/{step.repository}/tags/list", login=login, timeout=60)
    listed = tags.status == 200 and step.tag in (json.loads(tags.body).get("tags") or ())
    return listed and _is_gone(settings, login, step)


def _is_gone(settings: Settings, login: Credentials, step: DeletionStep) -> bool:
    # Without the kinds named, Distribution says of an OCI manifest that it is unknown.
    accept = client.MANIFEST_TYPES
    path = _path(step)
    return client.ask(settings, path, login=login, method="HEAD", accept=accept).status == 404


def _path(step: DeletionStep) -> str:
    return f"/v2/{step.repository}/manifests/{step.tag or step.digest}"


def _untag(settings: Settings, login: Credentials, step: DeletionStep) -> None:
    path = _path(step)
    answer = client.ask(settings, path, login=login, method="DELETE")
    if answer.status in (202, 404):
        return
    if answer.status not in (400, 405):
        raise _refused(step, answer)
    content = _throw_away(settings, login, step)
    answer = client.ask(
        settings, path, login=login, method="PUT", body=content, content_type=_MANIFEST
    )
    if answer.status != 201:
        raise _refused(step, answer)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _delete(settings, login, step.repository, digest)


def _throw_away(settings: Settings, login: Credentials, step: DeletionStep) -> bytes:
    """A manifest that no other tag can have, over an empty configuration that is uploaded."""
    digest = f"sha256:{hashlib.sha256(_EMPTY).hexdigest()}"
    begun = client.ask(
        settings, f"/v2/{step.repository}/blobs/uploads/", login=login, method="POST"
    )
    if begun.status != 202:
        raise _refused(step, begun)
    place = urlsplit(begun.headers.get("location", ""))
    query = f"{place.query}&digest={digest}" if place.query else f"digest={digest}"
    kept = client.ask(
        settings, f"{place.path}?{query}", login=login, method="PUT", body=_EMPTY,
        content_type="application/octet-stream",
    )  # fmt: skip
    if kept.status != 201:
        raise _refused(step, kept)
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": 2}
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": config,
        "layers": [config],
        "annotations": {"io.moorage.deleted": f"{step.tag} {secrets.token_hex(16)}"},
    }
    return json.dumps(document).encode()


def _delete(settings: Settings, login: Credentials, repository: str, digest: str) -> bool:
    """Whether it and its tags went now; False: it is gone, but some of its tags may be left."""
    step = DeletionStep(repository, digest)
    answer = client.ask(settings, _path(step), login=login, method="DELETE", timeout=60)
    if answer.status == 202:
        return True
    if answer.status != 404 and not (answer.status >= 500 and _is_gone(settings, login, step)):
        raise _refused(step, answer)
    return False


def _refused(step: DeletionStep, answer: client.Answer) -> MoorageError:
    name = f"{step.repository}{':' + step.tag if step.tag else '@' + step.digest}"
    return MoorageError(
        "delete-refused",
        f"the registry does not delete {name}: it answers {answer.status}",
        cause=answer.body[:200].decode(errors="replace").strip() or "it says no more",
        cure="inv registry.up gives the registry our configuration, which allows deletes",
    )
