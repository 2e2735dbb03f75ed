"""The bytes of files as they were and as we left them: kept under their digests, and let go.

They come before the first change, and go when no record that may still be undone needs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from agent.journal.ledger import Store, digest_of
from agent.journal.record import Record
from agent.node.disk import make_folder, sync_folder, write_new

KEEP = 100  # finished transactions; the ledger rides on the newest, so older ones are history only


def keep(store: Store, contents: set[bytes | None]) -> None:
    """Have these bytes on the disk before anything is changed."""
    folder = store.folder / "blobs"
    make_folder(folder, 0o700)
    for content in (one for one in contents if one is not None):
        path = store.blob(digest_of(content))
        if not path.exists():
            draft = path.with_suffix(".new")
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
            write_new(draft, content, 0o600)
            draft.rename(path)
    sync_folder(folder)


def forget_old(store: Store) -> None:
    """Remove the records beyond the last ``KEEP``, and the bytes that no record needs."""
    for number in {*store.numbers()[:-KEEP], *store.useless()}:
        (store.history / f"{number:06}.json").unlink()
    records = list(store.records())
    needed: set[str | None] = set()
    if records and records[0].ledger:  # if nothing is ours, no bytes of others' files are kept
        needed = needed.union(*(record.digests for record in records))
        needed -= _spent_keys(records)
    for path in (store.folder / "blobs").iterdir():
        if path.name not in needed:
            path.unlink()


def _spent_keys(records: Sequence[Record]) -> set[str | None]:
    """The bytes of clients' keys of registries that are trusted no more.

    What stays for others who rely on it is no trust.
    """
    ours = records[0].ledger
    living = {
        digest for files in ours.values() for one in files for digest in (one.before, one.after)
    }
    trusted = {name for name, files in ours.items() if not all(one.kept for one in files)}
    gone = (record for record in records if record.registry not in trusted)
    keys = (one for record in gone for one in record.changes if one.path.endswith(".key"))
    return {digest for one in keys for digest in (one.before, one.after)} - living
