"""What the versions of a containerd's files keep it from reading: refused, or told beforehand.

Which versions it takes is its own word, `config dump`: 1.x alone takes a newer one without a word,
and reads nothing of it. Measured on 1.6, 1.7, 2.1 and 2.3.
"""

from __future__ import annotations

import shlex

from agent.edit.toml_edit import scan
from agent.edit.utf8 import MARK
from agent.facts import Containerd
from agent.node.tree import File
from agent.runtimes.containerd.layers import Layers
from agent.wire.faults import RefusedError

# The version whose names every line of containerd's major version reads.
NAMES = {1: 2, 2: 3}
_WITHOUT_MARK = r"sed -i '1s/^\xEF\xBB\xBF//'"


def refuse_marked(found: Containerd, layers: Layers) -> None:
    """Raise RefusedError for a byte order mark in a file of a containerd that takes none."""
    marked = [one.path for one in layers.all if (one.file.content or b"").startswith(MARK)]
    if marked and found.merged is None and found.version[0] >= 2:
        raise RefusedError(
            "config-not-toml",
            f"{marked[0]} begins with a byte order mark, which containerd {found.version_text} "
            "does not read",
            cause=found.complaint or "1.x reads such a file; 2.0 and newer do not start with it",
            cure=f"take it out: {_WITHOUT_MARK} {shlex.quote(marked[0])}",
        )


def refuse_marked_hosts(found: Containerd, file: File) -> None:
    """Raise RefusedError for a byte order mark in a hosts.toml of a containerd that takes none.

    What is said there counts for nothing, so that a CA added to it would not either.
    """
    if (file.content or b"").startswith(MARK) and found.version[0] >= 2:
        raise RefusedError(
            "config-not-toml",
            f"{file.path} begins with a byte order mark, which containerd {found.version_text} "
            "does not read",
            cause="1.x reads such a file; to 2.0 and newer it says nothing",
            cure=f"take it out: {_WITHOUT_MARK} {shlex.quote(file.path)}",
        )


def refuse_unheaded(found: Containerd, file: File, host: str) -> None:
    """Raise RefusedError if this containerd never tries a host that a hosts.toml has.

    From 2.0 on the order of hosts is taken from their headers (``getSortedHosts`` in
    core/remotes/docker/config/hosts.go); one in a dotted key or an inline table has no place in it.
    Tried with 2.1.9; 1.6 takes each way of writing it.
    """
    text = (file.content or b"").decode("utf-8", "replace")
    if found.version[0] >= 2 and scan(text).header(("host", host)) is None:
        raise RefusedError(
            "mirror-foreign",
            f"{file.path} has {host} in a way that containerd {found.version_text} passes over",
            cause="2.0 and newer try only hosts that have a header of their own",
            cure=f'write it below a line [host."{host}"], then run again',
        )


def refuse_unread(found: Containerd, layers: Layers) -> None:
    """Raise RefusedError for files whose versions this containerd does not take."""
    known = NAMES.get(found.version[0], 3)
    version = layers.version or 0
    clash = layers.unread
    if found.merged is None and clash is not None and layers.apart:
        older, newer = clash
        raise RefusedError(
            "config-version",
            f"{newer.path} is of version {version}, newer than {older.path}, of version 2",
            cause=f"containerd {found.version_text} does not start with such a drop-in: "
            f"{found.complaint}",
            cure=_cure(found, older.path),
        )
    if version > known and (found.version[0] < 2 or found.merged is None):
        raise RefusedError(
            "config-version",
            f"{found.config.path} is of version {version}, which containerd "
            f"{found.version_text} does not read",
            cause=found.complaint or f"its containerd reads versions up to {known}",
            cure=f"write it as version {known}, then run again",
        )


def notes(found: Containerd, layers: Layers) -> list[str]:
    """What a restart by anybody would end, said before ours."""
    clash = layers.unread
    if clash is None or layers.apart:
        return []
    older, newer = clash
    return [
        f"containerd {found.version_text} reads none of CRI's tables in {older.path}, of version "
        f"2, beside {newer.path}, of version {layers.version}: what they say ends with the next "
        f"restart, whoever does it, if it has not yet. {_cure(found, older.path)}"
    ]


def _cure(found: Containerd, path: str) -> str:
    """The way to one version for all files.

    `config migrate` reads the drop-ins too, so that it loses the same settings: it is given the
    file without its imports.
    """
    whole, bare, new = (shlex.quote(f"{path}{end}") for end in ("", ".alone", ".new"))
    alone = f"sed '/^imports/d' {whole} > {bare}"
    migrate = f"{shlex.quote(found.binary)} --config {bare} config migrate"
    imports = f"""sed "s|^imports = .*|$(grep ^imports {whole})|" > {new}"""
    return f"rewrite {path}: {alone} && {migrate} | {imports}; look at {path}.new, then mv it there"
