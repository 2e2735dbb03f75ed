"""A registry with TLS that others' files ask by plain HTTP: which line does, and the cure.

A CA counts for nothing there. Where a table is moved anyway it is moved to HTTPS; elsewhere the
line is another's, so it is named, with the command that mends it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from urllib.parse import urlsplit

from agent.edit.utf8 import encoding
from agent.node.tree import File
from agent.wire.faults import RefusedError
from agent.wire.plan import Registry

_URL = re.compile(r"http://[^\s\"'\],]+")


def asks(url: str, registry: Registry) -> bool:
    """Whether a URL is this registry's own but for the scheme: at its port, or 80 for 443."""
    if registry.plain_http:
        return False
    parts = urlsplit(url)
    try:
        port = parts.port or 80
    except ValueError:
        return False
    ports = (80, 443) if registry.port == 443 else (registry.port,)
    return (parts.scheme, parts.hostname, parts.path.rstrip("/")) == (
        "http", registry.host, "",
    ) and port in ports  # fmt: skip


def line(content: bytes, registry: Registry) -> tuple[int, str] | None:
    """The number, from 1, of the first line that asks so, and the URL as it stands there."""
    text = content.decode(encoding(content), "replace")
    for number, words in enumerate(text.split("\n"), 1):
        for found in _URL.finditer(words.partition("#")[0]):
            if asks(found[0], registry):
                return number, found[0]
    return None


def refuse(files: Iterable[File], registry: Registry) -> None:
    """Raise RefusedError that names the first line of these files by which it is asked so."""
    for file in files:
        found = line(file.content or b"", registry)
        if found is not None:
            number, url = found
            raise RefusedError(
                "asked-by-plain-http",
                f"{file.path}, line {number}, asks {registry.name} by plain HTTP: {url}",
                cause="the registry has TLS, and whatever is asked so never reaches it",
                cure=f"sed -i '{number}s|{url}|{registry.url}|' {shlex.quote(file.path)}, "
                "then run again",
            )
