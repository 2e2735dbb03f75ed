"""A registry of its own over what restic gave back, from which every tag is pulled whole."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from moorage.errors import MoorageError
from moorage.registry.client import MANIFEST_TYPES

# Serves a data folder for a while -> host and port, without TLS and login, on loopback.
Serve = Callable[[Path], AbstractContextManager[tuple[str, int]]]
_CHUNK = 1 << 20


def pull_all(
    at: tuple[str, int],
    tags: Mapping[str, str],
    update: Callable[[int], None] = lambda _: None,
) -> None:
    """Pulls every tag. Raises MoorageError (``backup-not-proven``) for the first that is not what
    the backup says, or not whole."""
    puller = _Puller(http.client.HTTPConnection(*at, timeout=120))
    try:
        for done, (name, digest) in enumerate(tags.items(), 1):
            repository, _, tag = name.rpartition(":")
            found = puller.manifest(repository, tag)
            if found != digest:
                raise not_proven(name, f"it is {found}, and was {digest}")
            update(done)
    except (OSError, http.client.HTTPException) as problem:
        raise not_proven(name, f"the registry does not go on: {problem}") from None
    finally:
        puller.connection.close()


class _Puller:
    """Pulls over one connection; what was read once is not read again."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self._read: set[tuple[str, str]] = set()

    def manifest(self, repository: str, reference: str) -> str:
        """A manifest and all below it -> its digest."""
        if (repository, reference) in self._read:
            return reference
        name = f"{repository}:{reference}"
        path = f"/v2/{repository}/manifests/{reference}"
        content = b"".join(self._get(name, path))
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._read.add((repository, found))
        document = json.loads(content)
        for child in document.get("manifests") or ():
            self._child(repository, str(child["digest"]))
        for part in [*(document.get("layers") or ()), document.get("config") or {}]:
            if digest := str(part.get("digest") or ""):
                self._blob(repository, digest)
        return found

    def _child(self, repository: str, digest: str) -> None:
        path = f"/v2/{repository}/manifests/{digest}"
        self.connection.request("HEAD", path, headers={"Accept": MANIFEST_TYPES})
        answer = self.connection.getresponse()
        answer.read()
        # A platform that was never pushed was not there before, either.
        if answer.status == 404:
            return
        if self.manifest(repository, digest) != digest:
            raise not_proven(f"{repository}@{digest}", "its content has another digest")

    def _blob(self, repository: str, digest: str) -> None:
        if (repository, digest) in self._read:
            return
        hashed = hashlib.sha256()
        name = f"{repository}@{digest}"
        for chunk in self._get(name, f"/v2/{repository}/blobs/{digest}"):
            hashed.update(chunk)
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise not_proven(name, "its content has another digest")
        self._read.add((repository, digest))

    def _get(self, name: str, path: str) -> Iterator[bytes]:
        self.connection.request("GET", path, headers={"Accept": MANIFEST_TYPES})
        answer = self.connection.getresponse()
        if answer.status != 200:
            raise not_proven(name, f"the registry answers {answer.status}")
        while chunk := answer.read(_CHUNK):
            yield chunk


def not_proven(name: str, cause: str) -> MoorageError:
    """The backup is not to be relied on, for ``name`` does not come back."""
    return MoorageError(
        "backup-not-proven",
        f"the backup does not give back {name}",
        cause=cause,
        cure="inv registry.verify says whether the registry has it whole; then back up again",
    )
