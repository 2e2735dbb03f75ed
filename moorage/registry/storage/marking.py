"""Which blobs the manifests of a registry still need. Reads; decides; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from moorage.errors import MoorageError
from moorage.registry.storage import manifest
from moorage.registry.storage.layout import Layout
from moorage.registry.storage.manifest import MAX_MANIFEST, Manifest


@dataclass(frozen=True)
class Marked:
    """``needed``: every digest that a linked manifest reaches, and the manifests themselves.
    ``linked``: what a repository may serve beside manifests, and since when (the latest link)."""

    needed: frozenset[str]
    linked: Mapping[str, float]


def reach(roots: Iterable[str], read: Callable[[str], Manifest | None]) -> frozenset[str]:
    """The roots and all that they name, down to the layers. ``read`` gives None for a manifest
    that is not there: an index may name platforms that were never pushed."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        made = read(digest)
        if made is not None:
            found |= made.parts
            waiting.extend(made.children)
    return frozenset(found)


class Marker:
    """Marks again and again; content never changes under its digest, so each is parsed once."""

    def __init__(self, layout: Layout, elsewhere: Callable[[str], bytes | None]) -> None:
        """``elsewhere`` finds content that a collection has set aside."""
        self._layout = layout
        self._elsewhere = elsewhere
        self._known: dict[str, Manifest] = {}
        self._unreadable: dict[str, str] = {}

    def mark(self) -> Marked:
        """Raises MoorageError (``registry-damaged``) for a linked manifest that cannot be read:
        what it needs is unknown then, and nothing may be collected."""
        linked: dict[str, float] = {}
        needed: set[str] = set()
        for repository in self._layout.repositories():
            for digest, since in self._layout.layers(repository).items():
                linked[digest] = max(since, linked.get(digest, 0.0))
            revisions = self._layout.revisions(repository)
            for digest in revisions:
                self._require(repository, digest)
            needed |= reach(revisions, self._read)
        return Marked(frozenset(needed), linked)

    def _require(self, repository: str, digest: str) -> None:
        """What is linked as a manifest has to be one, unless it was deleted meanwhile."""
        known = self._read(digest) is not None
        cause = self._unreadable.get(digest, "" if known else "its content is not in the store")
        if cause and self._layout.revision_link(repository, digest).exists():
            raise damaged(repository, digest, cause)

    def _read(self, digest: str) -> Manifest | None:
        """An index may name what is no manifest: that is needed, and names nothing further."""
        if digest not in self._known:
            content = self._layout.read(digest, MAX_MANIFEST) or self._elsewhere(digest)
            if content is None:
                return None
            self._known[digest] = Manifest()
            try:
                self._known[digest] = manifest.checked(digest, content)
            except ValueError as problem:
                self._unreadable[digest] = str(problem)
        return self._known[digest]


def damaged(repository: str, digest: str, cause: str) -> MoorageError:
    """A manifest that cannot be read; ``repository`` is "" if it is known by its digest alone."""
    name = f"{repository}@{digest}" if repository else digest
    return MoorageError(
        "registry-damaged",
        f"the manifest {name} cannot be read, so it is unknown what it needs",
        cause=cause,
        cure="inv registry.verify names what is damaged; push that image again, or delete it",
    )
