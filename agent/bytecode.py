"""The archive's modules as what they compile to: one member, read once.

``zipimport`` opens the archive anew for each module and reads it twice (its ``get_filename`` loads
the code to tell where it is from): 20 ms of a node's processor for what one operation imports. The
member is for one Python, whose magic number (PEP 3147) it begins with; every other one passes it
over. What follows is a marshalled table: a module's name -> its path in the archive, and its code,
each compressed by itself, for no run needs them all.
"""

from __future__ import annotations

import marshal
import sys
import zipimport
import zlib
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import MAGIC_NUMBER
from types import CodeType, ModuleType

MEMBER = "bytecode"

Table = dict[str, tuple[str, bytes]]


def packed(modules: Mapping[str, CodeType]) -> bytes:
    """The member for modules by their paths in the archive, compiled by this Python."""
    table = {
        _name(path): (path, zlib.compress(marshal.dumps(code), 9))
        for path, code in sorted(modules.items())
    }
    return MAGIC_NUMBER + marshal.dumps(table)


def read(archive: str) -> Table | None:
    """The archive's table, None if it has none for this Python."""
    try:
        content = zipimport.zipimporter(archive).get_data(MEMBER)
    except (OSError, ImportError):
        return None
    if not content.startswith(MAGIC_NUMBER):
        return None
    table: Table = marshal.loads(memoryview(content)[len(MAGIC_NUMBER) :])  # noqa: S302
    return table


def install(archive: str, table: Table) -> None:
    """Has what is in the table imported from it, before anything looks at the sources."""
    sys.meta_path.insert(0, _Finder(archive, table))


class _Finder:
    def __init__(self, archive: str, table: Table) -> None:
        self._archive = archive
        self._table = table

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._table:
            return None
        file = f"{self._archive}/{self._table[name][0]}"
        folder, _, last = file.rpartition("/")
        spec = ModuleSpec(name, self, origin=file)  # type: ignore[arg-type]  # by its methods
        spec.has_location = True
        if last == "__init__.py":
            spec.submodule_search_locations = [folder]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # It is asked for once, and an agent that stays has no use for it afterwards.
        _, code = self._table.pop(module.__name__)
        exec(marshal.loads(zlib.decompress(code)), module.__dict__)  # noqa: S102, S302

    def get_data(self, path: str) -> bytes:
        """A file beside a module, for ``pkgutil.get_data``."""
        return zipimport.zipimporter(self._archive).get_data(path)


def _name(path: str) -> str:
    words = path[: -len(".py")].split("/")
    return ".".join(words[:-1] if words[-1] == "__init__" else words)
