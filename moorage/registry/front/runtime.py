"""HAProxy's runtime socket: logins and the certificate, exchanged while requests go on.

https://docs.haproxy.org/2.6/management.html#9.3. Each exchange is a transaction of HAProxy's: until
its commit the old rows, or the old certificate, are in force.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from agent.wire import unix_sockets
from moorage.errors import MoorageError, Refused
from moorage.registry.front.configuration import FRONT_SOCKET, LOGINS, PAIR

# A payload has to fit into HAProxy's buffer (tune.bufsize) with its command.
_PAYLOAD_BYTES = 30_000
_TIMEOUT = 10


def replace_logins(run: Path, etc: str, rows: bytes) -> None:
    """Puts ``rows`` in the place of all the map's rows at once, and looks that they are there.

    ``run``: the folder of the sockets on this machine; ``etc``: that of the files as HAProxy sees
    it. Raises MoorageError (``front-silent``, ``front-refuses``); the old rows are in force then.
    """
    name = f"{etc}/{LOGINS}"
    answer = ask(run, f"prepare map {name}")
    version = re.search(r"version created: (\d+)", answer)
    if version is None:
        raise _refuses(f"prepare map: {answer}")
    for part in _parts(rows):
        answer = ask(run, f"add map @{version[1]} {name} <<\n{part}")
        if answer:
            raise _refuses(f"add map: {answer}")
    answer = ask(run, f"commit map @{version[1]} {name}")
    if answer:
        raise _refuses(f"commit map: {answer}")
    there = {line.partition(" ")[2] for line in ask(run, f"show map {name}").splitlines() if line}
    if there != set(rows.decode().splitlines()):
        raise _refuses("the rows are not those that were committed")


def replace_pair(run: Path, etc: str, pem: bytes, file: str = PAIR) -> None:
    """Serves the certificate and key in ``pem`` from the next handshake on; connections stay.

    ``file``: the one in whose place it is served.
    Raises Refused (``certificate-refused``) if HAProxy does not accept the pair: the old one goes
    on; MoorageError (``front-silent``) if it does not answer.
    """
    name = f"{etc}/{file}"
    text = "\n".join(line for line in pem.decode().splitlines() if line.strip())
    answer = ask(run, f"set ssl cert {name} <<\n{text}\n")
    if "ransaction" not in answer or "rror" in answer:
        ask(run, f"abort ssl cert {name}")
        raise _pair_refused(answer)
    answer = ask(run, f"commit ssl cert {name}")
    if "Success" not in answer:
        ask(run, f"abort ssl cert {name}")
        raise _pair_refused(answer)


def answers(run: Path) -> bool:
    """Whether HAProxy serves at its runtime socket."""
    try:
        return "Version: " in ask(run, "show info")
    except MoorageError:
        return False


def ask(run: Path, command: str) -> str:
    """One command -> its answer. Raises MoorageError (``front-silent``)."""
    try:
        # A path below /proc: a socket's own may have 107 bytes (unix(7)), a checkout's has more.
        folder = os.open(run, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as line:
                place = f"/proc/self/fd/{folder}/{FRONT_SOCKET}"
                unix_sockets.connect(line, place, _TIMEOUT)
                line.sendall(command.encode() + b"\n")
                return b"".join(iter(lambda: line.recv(65536), b"")).decode().strip()
        finally:
            os.close(folder)
    except OSError as problem:
        raise MoorageError(
            "front-silent",
            "the registry's front does not answer",
            cause=f"{run / FRONT_SOCKET}: {problem.strerror or problem}",
            cure="inv registry.up",
            path=str(run / FRONT_SOCKET),
        ) from None


def _parts(rows: bytes) -> Iterator[str]:
    part = ""
    for line in rows.decode().splitlines(keepends=True):
        if len(part) + len(line) > _PAYLOAD_BYTES:
            yield part
            part = ""
        part += line
    if part:
        yield part


def _refuses(words: str) -> MoorageError:
    return MoorageError(
        "front-refuses",
        "the registry's front does not accept the logins",
        cause=words,
        cure="inv registry.up",
    )


def _pair_refused(words: str) -> Refused:
    return Refused(
        "certificate-refused",
        "the registry's front does not accept this certificate and its key",
        cause=" ".join(words.split()) or "it said nothing",
        cure="inv certs.show; the certificate that was served goes on",
    )
