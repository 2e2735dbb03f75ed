"""restic as few verbs. The passphrase goes in on stdin: into no command line, no file of ours.

https://restic.readthedocs.io/en/stable/075_scripting.html; S3's keys are read from AWS's own
variables, as restic does.
"""

from __future__ import annotations

import datetime
import json
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage import commands
from moorage.configuration.profiles import DEFAULT
from moorage.errors import MoorageError, Refused
from moorage.files import user_path
from moorage.redaction import keep_secret

# Each profile's registry is another one. https://restic.readthedocs.io/en/stable/040_backup.html
_PROFILE = "profile:"
# Hours: a first backup of a terabyte over a slow line ends all the same.
_TIMEOUT = 48 * 3600.0
# What restic has said of each since 0.9, and since 0.17 by exit codes 10 to 12.
_WRONG_PASSPHRASE = re.compile(r"wrong password or no key found")
_NO_REPOSITORY = re.compile(
    r"Is there a repository at the following location|unable to open config file|"
    r"config file does not exist|repository does not exist"
)
_LOCKED = re.compile(r"repository is already locked|unable to create lock")


@dataclass(frozen=True)
class BackupPlace:
    """Where backups are: restic's word for it, and the passphrase. No ``repr`` shows that."""

    at: str
    passphrase: str = field(repr=False)


def place(text: str, passphrase: str) -> BackupPlace:
    """A folder, ``sftp:user@host:/folder`` or ``s3:https://host/bucket``.

    Raises Refused (``wrong-use``) for anything else, (``no-program``) if there is no restic.
    """
    scheme = re.match(r"[a-z0-9]+:", text)
    known = re.fullmatch(r"sftp:[^:/\s]+:/?\S+|s3:\S+/\S+", text)
    if not text or (scheme and not known) or text.startswith("-") or "\0" in text:
        raise Refused(
            "wrong-use",
            f"invalid place of a backup {text!r}",
            cause="known are a folder, sftp:USER@HOST:FOLDER and s3:HOST/BUCKET",
            cure="inv registry.backup /mnt/backup",
        )
    if shutil.which("restic") is None:
        raise Refused(
            "no-restic",
            "restic is not installed",
            cause="it keeps the backups, encrypted and without doubles",
            cure="sudo apt-get install restic",
        )
    return BackupPlace(text if scheme else str(user_path(text).resolve()), passphrase)


def read_passphrase(file: Path) -> str:
    """The first line of ``file``. Raises OSError, Refused (``no-password``)."""
    found = file.read_text(encoding="utf-8").splitlines()
    if not found or not found[0]:
        raise Refused(
            "no-password",
            f"{file} holds no passphrase",
            cause="its first line is empty",
            cure="write the passphrase into its first line",
            path=str(file),
        )
    return keep_secret(found[0])


def ensure(at: BackupPlace) -> bool:
    """Makes the repository if there is none -> whether it was made. Raises MoorageError."""
    try:
        _run(at, "cat", "config")
    except MoorageError as problem:
        if problem.code != "no-backup":
            raise
        _run(at, "init")
        return True
    return False


def backup(at: BackupPlace, folder: Path, profile: str) -> str:
    """Stores ``folder``, of that profile's registry -> the snapshot's id.

    Hard links are made anew each time, which changes a file's ctime and nothing in it.
    """
    tags = "--tag=moorage", f"--tag={_PROFILE}{profile or DEFAULT}"
    said = _run(at, "backup", "--json", "--ignore-ctime", "--host=moorage", *tags, ".", cwd=folder)
    for line in reversed(said.splitlines()):
        document = json.loads(line)
        if document.get("message_type") == "summary":
            return str(document["snapshot_id"])
    raise MoorageError("backup-failed", "restic does not say what it stored", cause=said[-200:])


def restore(at: BackupPlace, snapshot: str, target: Path) -> None:
    """Puts a snapshot into ``target``. Raises MoorageError (``backup-damaged``)."""
    _run(at, "restore", snapshot, "--target", str(target))


def prove(at: BackupPlace, snapshot: str) -> str:
    """Notes of a snapshot that it was served and pulled from -> its id from then on.

    restic stores it once more with its tags, which gives it another, and keeps the first one as
    ``original``.
    """
    _run(at, "tag", "--add=proven", snapshot)
    marked = (str(one["id"]) for one in snapshots(at) if _was(one, snapshot))
    return next(marked, snapshot)


def _was(one: Mapping[str, Any], snapshot: str) -> bool:
    return str(one.get("original") or one["id"]).startswith(snapshot)


def snapshots(at: BackupPlace) -> list[dict[str, Any]]:
    """Ours, the oldest first; ``proven`` is in the ``tags`` of those that are.

    restic notes local times: of one hour there are two when summer time ends.
    """
    found: list[dict[str, Any]] = json.loads(_run(at, "snapshots", "--json", "--tag=moorage"))
    return sorted(found or [], key=lambda one: datetime.datetime.fromisoformat(one["time"]))


def profile_of(snapshot: Mapping[str, Any]) -> str:
    """The profile whose registry a snapshot is of; one of before this was noted counts for the
    usual one. Pure."""
    found = (str(tag) for tag in snapshot.get("tags") or ())
    named = (tag.removeprefix(_PROFILE) for tag in found if tag.startswith(_PROFILE))
    return next(named, DEFAULT)


def _run(at: BackupPlace, *words: str, cwd: Path | None = None) -> str:
    # Without that file, restic 0.14 says on stdout that it reads a password, before its JSON.
    argv = ["restic", "--repo", at.at, "--password-file", "/dev/stdin", *words]
    done = commands.run(
        argv, stdin=at.passphrase.encode() + b"\n", cwd=cwd, timeout=_TIMEOUT, check=False
    )
    if done.returncode != 0:
        said = commands.last_words(done.stderr or done.stdout)
        raise _explained(at, words[0], done.returncode, said)
    return done.stdout.decode(errors="replace")


def _explained(at: BackupPlace, verb: str, code: int, words: str) -> MoorageError:
    if _WRONG_PASSPHRASE.search(words) or code == 12:
        return Refused(
            "backup-passphrase",
            f"the passphrase does not open {at.at}",
            cause="restic has no key there that it fits",
            cure="type it again, or give another --passphrase-file",
        )
    if _NO_REPOSITORY.search(words) or code == 10:
        return Refused(
            "no-backup",
            f"there is no backup at {at.at}",
            cause=words,
            cure="correct the place; inv registry.backup TO makes the first one there",
        )
    if _LOCKED.search(words) or code == 11:
        return MoorageError(
            "backup-locked",
            f"another restic is at work at {at.at}",
            cause=words,
            cure=f"wait for it; if it was killed: restic --repo {shlex.quote(at.at)} unlock",
        )
    damaged = verb == "restore"
    return MoorageError(
        "backup-damaged" if damaged else "backup-failed",
        f"restic could not {verb} at {at.at}",
        cause=words,
        cure=f"restic --repo {shlex.quote(at.at)} check says what is damaged"
        if damaged
        else "the same command again goes on from here",
    )
