"""Debian's packages as a tar of files, by mmdebstrap: what it needs here, and why it fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moorage import commands
from moorage.actions import Action
from moorage.docker import apt
from moorage.errors import MoorageError, Refused

if TYPE_CHECKING:
    from moorage.output import Update

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LOG = "mmdebstrap.log"


def packages(*, installs: bool = True) -> tuple[str, ...]:
    """What mmdebstrap needs on this machine. ``installs``: packages are not just unpacked."""
    found = ["mmdebstrap"]
    if not _KEYRING.exists():  # Ubuntu
        found.append("debian-archive-keyring")
    if installs and os.geteuid() != 0 and shutil.which("newuidmap") is None:
        found.append("uidmap")
    return tuple(found)


def pending(*, installs: bool = True) -> list[Action]:
    """What has to be installed for it.

    Raises Refused if it cannot be, or (``no-subordinate-ids``) if this user cannot use it.
    """
    if installs and os.geteuid() != 0:
        _need_subordinate_ids()
    return apt.pending(packages(installs=installs))


def run(words: Sequence[str], aim: Sequence[str], log: Path, update: Update) -> None:
    """Runs mmdebstrap with the options ``words``; ``aim``: suite, tar, lines of a sources.list.

    All that it says is in ``log``. Raises MoorageError: ``no-debian-base``, ``disk-full``.
    """
    # Its mounts in a namespace of their own: however it ends, none stays behind.
    apart = ("unshare", "--mount") if "--mode=root" in words else ()

    def heard(line: str) -> None:
        if line.startswith("I: "):
            update(text=f"Debian base: {line[3:60]}")

    try:
        commands.logged([*apart, "mmdebstrap", *words, *aim], log, heard=heard)
    except MoorageError as problem:
        raise _explained(problem.cause, log) from None


def _explained(said: str, log: Path) -> MoorageError:
    whole = log.read_text(errors="replace") if log.exists() else said
    if "No space left on device" in whole:
        return MoorageError(
            "disk-full",
            "the Debian base could not be made: the disk is full",
            cause=next(line for line in whole.splitlines() if "No space left" in line),
            cure=f"make room: df -h /tmp {log.parent}; then run this again",
            path=str(log),
        )
    return MoorageError(
        "no-debian-base",
        "the Debian base image could not be made",
        cause=_why(whole),
        cure="is a Debian mirror reachable? lab.mirror in invoke.yaml names another one; all "
        f"that was said is in {log}",
        path=str(log),
    )


def _why(words: str) -> str:
    """What failed first, of all that mmdebstrap and apt said; what follows from it is left out."""
    lines = [line for line in words.splitlines() if not line.startswith("I: ")]
    errors = [line for line in lines if line.startswith("E: ")]
    return "\n".join(dict.fromkeys(errors[:2] or lines[-4:])) or words


def _need_subordinate_ids() -> None:
    """mmdebstrap's unprivileged mode maps a range of ids: subuid(5)."""
    import pwd

    name = pwd.getpwuid(os.geteuid()).pw_name
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            lines = []
        if not any(line.split(":")[0] in (name, str(os.geteuid())) for line in lines):
            raise Refused(
                "no-subordinate-ids",
                f"{name} has no entry in {path}",
                cause="mmdebstrap without root makes files of many owners, from that range of ids",
                cure=(
                    "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "
                    f"{name}; or run this as root"
                ),
                path=path,
            )
