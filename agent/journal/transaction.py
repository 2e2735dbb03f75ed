"""The only code that changes the node: all changes of a step, or none.

An undo log. What will be changed, and the bytes that stand there now, are on disk (file and folder
synced) before the first change; ``commit`` turns that intent into history by one rename. A
transaction found unfinished by a later agent is rolled back: every file is as it was before.
Passwords never come near here: only files' bytes are kept, and no plan writes one. A client's key
is such a file; its bytes go with the trust (:func:`agent.journal.blobs.forget_old`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agent.edit.change import SCRATCH, Change, Ledgers
from agent.journal import blobs
from agent.journal.boot import arm, disarm
from agent.journal.ledger import Store, as_json, digest_at, digest_of
from agent.journal.lock import asker
from agent.node.disk import (
    apply_metadata,
    explained,
    explanation,
    is_mounted,
    make_folder,
    metadata_of,
    mixed,
    outside,
    refuse_unwritable,
    remove_if_empty,
    sync_folder,
    write_all,
    write_new,
)
from agent.wire.faults import AgentError
from agent.wire.report import FileChange

_UNDONE = {"created": "removed", "edited": "edited", "removed": "created"}

# Tests stop the world here; nothing else sets it.
on_step: Callable[[str], None] = lambda name: None  # noqa: E731


class Restored(NamedTuple):
    """What a rollback did: files put back, those another hand has changed since, services."""

    registry: str
    files: tuple[FileChange, ...]
    foreign: tuple[str, ...]
    restarts: tuple[str, ...]


class Transaction:
    """One step from the state before to the state after."""

    def __init__(self, store: Store, intent: dict[str, Any]) -> None:
        self._store = store
        self.intent = intent
        self.unguarded = ""  # why nothing would recover at boot

    @classmethod
    def begin(
        cls,
        store: Store,
        operation: str,
        registry: str,
        changes: tuple[Change, ...],
        *,
        starts: Mapping[str, str],
        ledgers: Ledgers,
        waiting: Mapping[str, str] | None = None,
        remove_folders: tuple[str, ...] = (),
        undoes: int | None = None,
        run: str = "",
        agent: str = "",
        at_boot: Sequence[str] | None = None,
        along: Sequence[str] = (),
        agreed: bool = False,
        written: Sequence[str] = (),
    ) -> Transaction:
        """Put the intent on disk. Raises AgentError before that where a file cannot be written.

        ``starts`` tells the services to restart, and which start of each is running now;
        ``waiting`` those whose restart is put off; ``ledgers`` what will be ours afterwards;
        ``undoes`` the number of the one it takes back, for the operator's ``run``; ``at_boot`` the
        command that recovers; ``along`` the active services that are restarted with those;
        ``agreed`` whether the restarts may stop what runs; ``written`` what else the node's tools
        will write.
        """
        for path in (*(change.target for change in changes), *written):
            refuse_unwritable(outside(store.root, path))
        made = [folder for change in changes for folder in _missing_folders(store.root, change)]
        intent = {
            "version": 1,
            "number": (store.numbers() or [0])[-1] + 1,
            "operation": operation,
            "registry": registry,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "agent": agent,
            **asker(),
            "undoes": undoes,
            "run": run,
            "changes": [_intended(store.root, change) for change in changes],
            "folders": list(dict.fromkeys(made)),
            "remove_folders": [
                {"path": path, **metadata_of(outside(store.root, path))} for path in remove_folders
            ],
            "starts": dict(starts),
            "waiting": dict(waiting or {}),
            "along": list(along),
            "agreed": agreed,
            "ledger": as_json(ledgers),
        }
        transaction = cls(store, intent)
        with explained(store.folder):
            blobs.keep(
                store,
                {one for change in changes for one in (change.before, change.after)}
                | {
                    one
                    for ledger in ledgers.values()
                    for owned in ledger.values()
                    for one in (owned.before, owned.after)
                },
            )
            on_step("blobs kept")
            draft = store.folder / "active.new"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(mode=0o700)
            transaction._write_intent(draft)
            sync_folder(draft)
            on_step("intent drafted")
            try:
                if at_boot is not None:
                    transaction.unguarded = arm(store.root, at_boot, tuple(starts))
                    on_step("guard set")
                shutil.rmtree(store.active, ignore_errors=True)  # what a finished one left behind
                draft.rename(store.active)
                sync_folder(store.folder)
            except BaseException:
                if store.pending() is None:
                    disarm(store.root)
                raise
        on_step("begun")
        return transaction

    @classmethod
    def pending(cls, store: Store) -> Transaction | None:
        """The transaction an earlier agent left unfinished."""
        intent = store.pending()
        return None if intent is None else cls(store, intent)

    @property
    def agreed(self) -> bool:
        """Whether its restarts may stop what runs; a journal from before this was asked: no."""
        return bool(self.intent.get("agreed"))

    @property
    def along(self) -> tuple[str, ...]:
        """The services that ran when it began, and are restarted along."""
        return tuple(self.intent.get("along", ()))

    def due(self, starts: Callable[[str], str]) -> tuple[str, ...]:
        """The services that a rollback has to restart: those that may run with the new files."""
        noted = (self._store.active / "restarting").exists()
        return tuple(
            unit for unit, start in self.intent["starts"].items() if noted or starts(unit) != start
        )

    def stage(self) -> None:
        """Make folders, and write every new file beside the one it will replace."""
        for folder in self.intent["folders"]:
            path = outside(self._store.root, folder)
            with explained(path):
                path.mkdir(mode=0o755, exist_ok=True)
                path.chmod(0o755)
                sync_folder(path.parent)
            on_step("folder made")
        for entry in self.intent["changes"]:
            if entry["after"] is not None:
                with explained(self._target(entry)):
                    self._stage(entry)
                on_step("staged")

    def staged(self, path: str) -> Path:
        """Where the new bytes of a file wait."""
        return self._temporary(next(one for one in self.intent["changes"] if one["path"] == path))

    def scratch(self, files: Mapping[str, bytes]) -> Path:
        """A folder with files to be looked at before the change; it goes with the transaction.

        ``SCRATCH`` in a file's bytes becomes the folder's own name.
        """
        folder = self._store.active / "scratch"
        with explained(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            for name, content in files.items():
                write_new(
                    folder / name, content.replace(SCRATCH.encode(), str(folder).encode()), 0o600
                )
        return folder

    def write(self) -> None:
        """Put the new files in their places, one rename each."""
        for entry in self.intent["changes"]:
            target = self._target(entry)
            with explained(target):
                self._put(entry)
            on_step("written")
        for folder in reversed(self.intent["remove_folders"]):
            path = outside(self._store.root, folder["path"])
            with explained(path):
                remove_if_empty(path)
            on_step("folder removed")

    def restarting(self) -> None:
        """Note that services are about to be restarted: a rollback must restart them again."""
        with explained(self._store.folder):
            write_new(self._store.active / "restarting", b"", 0o600)
            sync_folder(self._store.active)
        on_step("restart noted")

    def commit(self) -> None:
        """From here on the new state is the state."""
        number = self.intent["number"]
        with explained(self._store.folder):
            make_folder(self._store.history, 0o700)
            on_step("about to commit")
            (self._store.active / "intent.json").rename(self._store.history / f"{number:06}.json")
        # The rename was the commit, and a fault from here on must not undo what is done. Should the
        # power fail before it is on the disk, recovery finds the intent and goes back to the old.
        on_step("committed")
        with contextlib.suppress(OSError, AgentError):
            sync_folder(self._store.history)
            sync_folder(self._store.active)
            disarm(self._store.root)
            on_step("guard taken away")
            shutil.rmtree(self._store.active, ignore_errors=True)
            blobs.forget_old(self._store)
        on_step("tidied")

    def rollback(self, starts: Callable[[str], str]) -> Restored:
        """Every file as it was. ``starts`` tells which start of a service is running now.

        Raises AgentError if some cannot be written now: all others are put back, the intent
        stays, and the next run goes on from there.
        """
        files: list[FileChange] = []
        foreign: list[str] = []
        problems: list[AgentError] = []
        for folder in self.intent["remove_folders"]:
            with _collected(problems, outside(self._store.root, folder["path"])) as path:
                if not path.exists():
                    path.mkdir(mode=0o700)
                    apply_metadata(path, folder)
                    sync_folder(path.parent)
        for entry in reversed(self.intent["changes"]):
            with _collected(problems, self._target(entry)):
                self._restore(entry, files, foreign)
            on_step("put back")
        for name in reversed(self.intent["folders"]):
            with _collected(problems, outside(self._store.root, name)) as path:
                remove_if_empty(path)
        if problems:
            raise problems[0]
        on_step("rolled back")
        return Restored(self.intent["registry"], tuple(files), tuple(foreign), self.due(starts))

    def forget(self) -> None:
        """The rollback is complete, restarts included: the intent has served."""
        with explained(self._store.folder):
            with contextlib.suppress(FileNotFoundError):
                (self._store.active / "intent.json").unlink()
            sync_folder(self._store.active)
        disarm(self._store.root)
        shutil.rmtree(self._store.active, ignore_errors=True)
        with contextlib.suppress(OSError, AgentError):  # its bytes too: a key may be among them
            blobs.forget_old(self._store)
        on_step("forgotten")

    # Files

    def _target(self, entry: Mapping[str, Any]) -> Path:
        return outside(self._store.root, entry["target"])

    def _temporary(self, entry: Mapping[str, Any]) -> Path:
        target = self._target(entry)
        return target.with_name(f".{target.name}.moorage-{self.intent['number']}")

    def _stage(self, entry: Mapping[str, Any]) -> None:
        target, temporary = self._target(entry), self._temporary(entry)
        content = self._store.read_blob(entry["after"]) or b""
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        # A key that a user's own engine reads is that user's; no one else may read it anyway.
        secret = b"PRIVATE KEY-----" in content
        write_new(temporary, content, 0o600, self._above(target) if secret else None)
        if target.exists():
            apply_metadata(temporary, metadata_of(target))
        if secret or not target.exists():
            temporary.chmod(0o600 if secret else entry["mode"])

    def _above(self, target: Path) -> Path:
        """The first folder above a file that was there before us."""
        made = {outside(self._store.root, folder) for folder in self.intent["folders"]}
        return next(folder for folder in target.parents if folder not in made)

    def _put(self, entry: dict[str, Any]) -> None:
        target, temporary = self._target(entry), self._temporary(entry)
        if digest_at(target) != entry["before"]:
            raise AgentError(
                "changed-meanwhile",
                f"{entry['path']} was changed by someone else a moment ago",
                cause="another tool edits this file too",
                cure="run again; if it comes back, find out which tool writes it",
            )
        if entry["after"] is None:
            target.unlink()
        elif entry["in_place"]:
            self._overwrite(entry, entry["after"])
            temporary.unlink()
        else:
            try:
                temporary.rename(target)
            except OSError as problem:
                if problem.errno != errno.EBUSY:
                    raise
                self._note_in_place(entry)
                self._overwrite(entry, entry["after"])
                temporary.unlink()
        sync_folder(target.parent)

    def _restore(
        self, entry: Mapping[str, Any], files: list[FileChange], foreign: list[str]
    ) -> None:
        temporary = self._temporary(entry)
        if os.path.lexists(temporary):  # an unlink of nothing fails on a read-only file system
            temporary.unlink()
        state = self._state(entry)
        if state == "foreign":
            foreign.append(entry["path"])
        elif state == "after":
            self._put_back(entry)
            files.append(FileChange(entry["path"], _UNDONE[entry["action"]]))

    def _put_back(self, entry: Mapping[str, Any]) -> None:
        target, temporary = self._target(entry), self._temporary(entry)
        if entry["before"] is None:
            target.unlink()
        elif entry["in_place"]:
            self._overwrite(entry, entry["before"])
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_new(temporary, self._store.read_blob(entry["before"]) or b"", 0o600)
            apply_metadata(temporary, entry["metadata"])
            temporary.rename(target)
        sync_folder(target.parent)

    def _state(self, entry: Mapping[str, Any]) -> str:
        """Whether a file is as it was ``before``, as we left it ``after``, or ``foreign``."""
        current = digest_at(self._target(entry))
        if current == entry["before"]:
            return "before"
        if current == entry["after"]:
            return "after"
        # Written over in place, a file can have been cut off half-way: no one else's doing.
        return "after" if entry["in_place"] and self._is_torn(entry) else "foreign"

    def _is_torn(self, entry: Mapping[str, Any]) -> bool:
        try:
            now = self._target(entry).read_bytes()
        except OSError:
            return False
        before = self._store.read_blob(entry["before"]) or b""
        after = self._store.read_blob(entry["after"]) or b""
        return mixed(now, after, before) or mixed(now, before, after)

    def _overwrite(self, entry: Mapping[str, Any], digest: str) -> None:
        """Write over a file that cannot be renamed over, without ever giving up its blocks.

        A disk that fills up half-way still has room for the old bytes: they go back first.
        """
        target = self._target(entry)
        content = self._store.read_blob(digest) or b""
        old = target.read_bytes()
        descriptor = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            try:
                write_all(descriptor, content)
            except OSError:
                write_all(descriptor, old)
                os.ftruncate(descriptor, len(old))
                os.fsync(descriptor)
                raise
            on_step("overwritten")
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # The journal

    def _note_in_place(self, entry: dict[str, Any]) -> None:
        entry["in_place"] = True
        self._write_intent(self._store.active)
        sync_folder(self._store.active)

    def _write_intent(self, folder: Path) -> None:
        draft = folder / "intent.json.new"
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        write_new(draft, json.dumps(self.intent, indent=1).encode(), 0o600)
        draft.rename(folder / "intent.json")


@contextlib.contextmanager
def _collected(problems: list[AgentError], path: Path) -> Iterator[Path]:
    """Keeps what keeps ``path`` from being written, and lets the work on the others go on."""
    try:
        yield path
    except OSError as problem:
        problems.append(explanation(problem, path))


def _intended(root: str, change: Change) -> dict[str, Any]:
    target = outside(root, change.target)
    return {
        "part": change.part,
        "path": change.path,
        "target": change.target,
        "action": change.action,
        "before": None if change.before is None else digest_of(change.before),
        "after": None if change.after is None else digest_of(change.after),
        "mode": change.mode,
        "metadata": None if change.before is None else metadata_of(target),
        "in_place": change.before is not None and is_mounted(target),
    }


def _missing_folders(root: str, change: Change) -> tuple[str, ...]:
    return change.missing_folders(lambda folder: outside(root, folder).exists())
