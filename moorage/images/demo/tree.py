"""The files of an image's layer as values, and as a tar that is the same for the same files.

https://github.com/opencontainers/image-spec/blob/main/layer.md
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from moorage.files import write_whole

_GZIP = zlib.MAX_WBITS + 16
# What Debian's packages have below /, and every system since bookworm has below /usr.
_MERGED = re.compile(r"(bin|sbin|lib(?:32|64|x32)?)(?=/|$)")


class LayerFile(NamedTuple):
    """What is at one path: ``kind`` as tar has it, ``target`` of a link."""

    kind: bytes
    mode: int
    content: bytes = b""
    target: str = ""


class PackedLayer(NamedTuple):
    """A layer's file: the digests of its bytes and of the tar within (``diff``), and its size."""

    digest: str
    diff: str
    size: int


Tree = dict[str, LayerFile]
FOLDER = LayerFile(tarfile.DIRTYPE, 0o755)


def file(content: bytes, mode: int = 0o644) -> LayerFile:
    """A file."""
    return LayerFile(tarfile.REGTYPE, mode, content)


def link(target: str) -> LayerFile:
    """A symbolic link."""
    return LayerFile(tarfile.SYMTYPE, 0o777, target=target)


def read(tar: Path, wanted: Callable[[str], bool]) -> Tree:
    """The files in ``tar`` of which ``wanted`` says so; devices and sockets are left out.

    /bin, /lib and so on become links to what is below /usr; no program keeps setuid or setgid,
    since all of it becomes root's. Raises OSError, tarfile.TarError.
    """
    found: Tree = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            name = member.name.removeprefix("./").strip("/")
            if not name or name == "." or not wanted(name):
                continue
            read_out = archive.extractfile(member) if member.isreg() else None
            if member.isdir() or member.isreg() or member.issym() or member.islnk():
                content = read_out.read() if read_out is not None else b""
                target = merged(member.linkname.removeprefix("./")) if member.islnk() else ""
                target = member.linkname if member.issym() else target
                kind = tarfile.REGTYPE if member.isreg() else member.type
                found[merged(name)] = LayerFile(kind, member.mode & 0o1777, content, target)
    tops = {top[1] for name in found if (top := _MERGED.match(name.removeprefix("usr/")))}
    return {**found, **{top: link(f"usr/{top}") for top in tops}}


def merged(name: str) -> str:
    """Where a path of a package is on a system whose /bin, /lib and so on are below /usr."""
    return f"usr/{name}" if _MERGED.match(name) else name


def with_folders(tree: Mapping[str, LayerFile]) -> Tree:
    """The same with each folder on the way to its files."""
    parents = {str(one) for name in tree for one in Path(name).parents} - {"."}
    return {**dict.fromkeys(parents, FOLDER), **tree}


def content_at(tree: Mapping[str, LayerFile], name: str) -> bytes | None:
    """The content of the file at ``name``, links followed; None if none is there."""
    for _ in range(8):
        one = tree.get(merged(name))
        if one is None or one.kind == tarfile.DIRTYPE:
            return None
        if one.kind == tarfile.REGTYPE:
            return one.content
        inside = one.kind == tarfile.SYMTYPE and not one.target.startswith("/")
        name = f"{Path(merged(name)).parent}/{one.target}" if inside else one.target.strip("/")
    return None


def pack(tree: Mapping[str, LayerFile], path: Path) -> PackedLayer:
    """Writes the layer into ``path``: by name, without times, all of it root's. Raises OSError."""
    diff, sizes = hashlib.sha256(), [0]
    digest = write_whole(path, _counted(_packed(_tar(tree), diff.update), sizes))
    return PackedLayer(f"sha256:{digest}", f"sha256:{diff.hexdigest()}", sizes[0])


def _counted(chunks: Iterable[bytes], sizes: list[int]) -> Iterator[bytes]:
    for chunk in chunks:
        sizes[0] += len(chunk)
        yield chunk


def _packed(chunks: Iterable[bytes], heard: Callable[[bytes], None]) -> Iterator[bytes]:
    """gzip without a time or a name in it."""
    packer = zlib.compressobj(wbits=_GZIP)
    for chunk in chunks:
        heard(chunk)
        yield packer.compress(chunk)
    yield packer.flush()


def _tar(tree: Mapping[str, LayerFile]) -> Iterator[bytes]:
    for name, one in sorted(tree.items()):
        info = tarfile.TarInfo(f"{name}/" if one.kind == tarfile.DIRTYPE else name)
        info.type, info.mode, info.linkname = one.kind, one.mode, one.target
        info.size = len(one.content)
        yield info.tobuf(tarfile.GNU_FORMAT)
        yield one.content + bytes(-len(one.content) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
