"""The official release of Kubernetes, each program checked against its published checksum."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.kubernetes.programs.names import NEEDED, WELCOME
from moorage.errors import MoorageError
from moorage.files import write_stream

if TYPE_CHECKING:
    from moorage.output import Progress, Update

_PROBE_SECONDS = 5
_STALL_SECONDS = 30
_CHUNK = 1 << 20


def why_not(place: str, version: str, architecture: str) -> str:
    """Why the release cannot be had from ``place`` (an address); empty if it can.

    Asks for one small checksum and waits five seconds at most for it.
    """
    answer = [f"no answer within {_PROBE_SECONDS} s"]

    def ask() -> None:
        try:
            _checksum(place, version, architecture, NEEDED[0], timeout=_PROBE_SECONDS)
        except (OSError, ValueError) as problem:
            answer[0] = _words(problem)
        else:
            answer[0] = ""

    # In a thread, because a name server that is out of reach knows no time-out of ours.
    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(_PROBE_SECONDS)
    return answer[0]


def download(
    place: str, version: str, architecture: str, folder: Path, progress: Progress
) -> dict[str, str]:
    """Every program of the release into ``folder``. Returns name -> SHA-256 (hex).

    Raises MoorageError if the line breaks or a program is not what its checksum says.
    """
    names = (*NEEDED, *WELCOME)
    sums: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        address = _address(place, version, architecture, name)
        title = f"downloading Kubernetes {version}: {name} ({number} of {len(names)})"
        try:
            expected = _checksum(place, version, architecture, name, timeout=_STALL_SECONDS)
            with progress(title) as update, _open(address, _STALL_SECONDS) as answer:
                sums[name] = write_stream(folder / name, _chunks(answer, update), mode=0o755)
        except (OSError, ValueError) as problem:
            raise MoorageError(
                "download-failed",
                f"{name} of Kubernetes {version} could not be downloaded",
                cause=f"{address}: {_words(problem)}",
                cure="run the same command again; nothing half is kept",
            ) from None
        if sums[name] != expected:
            raise MoorageError(
                "wrong-checksum",
                f"{name} of Kubernetes {version} is not what was published",
                cause=f"{address} has the SHA-256 {sums[name]}, its checksum says {expected}",
                cure="run it again; if it persists, somebody on the way changes downloads",
            )
    return sums


def _checksum(place: str, version: str, architecture: str, name: str, *, timeout: float) -> str:
    with _open(f"{_address(place, version, architecture, name)}.sha256", timeout) as answer:
        text = answer.read(200).decode(errors="replace").split()
    # A page that a proxy puts in between is no checksum.
    if not text or not re.fullmatch(r"[0-9a-f]{64}", text[0]):
        raise ValueError("what answers there is no checksum")
    return str(text[0])


def _address(place: str, version: str, architecture: str, name: str) -> str:
    return f"{place.rstrip('/')}/v{version}/bin/linux/{architecture}/{name}"


def _open(address: str, timeout: float) -> Any:
    return urllib.request.urlopen(address, timeout=timeout)  # noqa: S310 - settings checked it


def _chunks(answer: Any, update: Update) -> Iterator[bytes]:
    total = int(answer.headers.get("Content-Length") or 0)
    done = 0
    while chunk := answer.read(_CHUNK):
        done += len(chunk)
        update(done=done, total=total or None)
        yield chunk
    if total and done != total:
        raise ValueError(f"the answer ended after {done} of {total} bytes")


def _words(problem: Exception) -> str:
    if isinstance(problem, urllib.error.URLError) and not isinstance(
        problem, urllib.error.HTTPError
    ):
        return str(problem.reason)
    return str(problem) or type(problem).__name__
