"""CA files: which certificates they hold, and a folder whose every ``*.crt`` is trusted."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from agent.edit.change import Change, Ledger, Owned, change, readable
from agent.node.tree import Tree
from agent.wire import certificates as wire
from agent.wire.plan import Registry

BESIDE = "moorage-ca.crt"  # where another's ca.crt is there already

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----\r?\n?", re.DOTALL)


def certificates(content: bytes | None) -> frozenset[bytes]:
    """The certificates in a PEM file, in DER, so that two spellings of one compare equal."""
    found = set()
    for body in _BLOCK.findall(content or b""):
        try:
            found.add(base64.b64decode(b"".join(body.split()), validate=True))
        except binascii.Error:
            continue
    return frozenset(found)


def without_certificates(content: bytes, ours: frozenset[bytes]) -> bytes:
    """A PEM file without the given certificates; every other byte stays."""
    return _BLOCK.sub(lambda block: b"" if certificates(block[0]) <= ours else block[0], content)


def pem(der: bytes) -> bytes:
    """A certificate in PEM, as OpenSSL writes it."""
    return wire.pem(der).encode()


def certificate_file(
    part: str, tree: Tree, folder: str, registry: Registry, owned: Ledger
) -> tuple[Change, ...]:
    """The change that puts the CA into a folder whose every ``*.crt`` is trusted."""
    wanted = certificates(registry.ca_bytes)
    names = ["ca.crt", *(name for name in tree.names(folder) if name.endswith(".crt"))]
    files = [tree.read(f"{folder}/{name}") for name in dict.fromkeys(names)]
    for file in files:
        mine = owned.get(file.path)
        if mine is not None and file.content is not None and file.content == mine.after:
            return change(part, file, registry.ca_bytes)
    if any(wanted <= certificates(file.content) for file in files):
        return ()
    for name in ("ca.crt", BESIDE):
        file = tree.read(f"{folder}/{name}")
        if readable(file) is None or name != "ca.crt":
            return change(part, file, registry.ca_bytes)
    return ()


def authority_in(tree: Tree, folder: str, registry: Registry, made: Sequence[Change]) -> str | None:
    """The file of ours that has the CA in a registry's folder, by what is there and what comes
    (``made``); None if another's files have the registry trusted without it."""
    coming = {one.path: one.after for one in made}
    for path in (f"{folder}/ca.crt", f"{folder}/{BESIDE}"):
        content = coming[path] if path in coming else tree.read(path).content
        if registry.plain_http or certificates(registry.ca_bytes) <= certificates(content):
            return path
    return None


def strip_certificates(owned: Owned, content: bytes) -> bytes | None:
    """A CA file others edited since: without our certificates, gone where nothing else is in it."""
    rest = without_certificates(content, certificates(owned.after))
    return rest if rest.strip() else None
