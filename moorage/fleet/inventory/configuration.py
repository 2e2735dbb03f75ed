"""An OpenSSH configuration as a list of hosts: those that its Host lines name without a pattern.

What it says of them is OpenSSH's affair (``moorage.fleet.openssh``). Several names on one line may
be one machine, which is one host then: ``moorage.fleet.ssh.routing`` finds that out.
"""

from __future__ import annotations

from collections.abc import Iterator

from moorage.errors import Refused
from moorage.files import user_path
from moorage.fleet.inventory.targets import OPENSSH, Inventory, Target, bad, parsed
from moorage.fleet.openssh import files, words


def read(text: str, source: str) -> Inventory:
    """The hosts that the configuration in ``text`` names; files that it includes are read.

    ``source``: its path. Raises Refused (``bad-inventory``) with file and line.
    """
    path = user_path(source).absolute()
    try:
        file = files.parse(text.encode(), path)
    except Refused as problem:
        place = problem.message.partition(": ")[0]
        raise bad(place, 0, problem.cause) from None
    named: dict[str, Target] = {}
    for name, place in _names(file, ()):
        if name not in named:
            found = parsed(name, place, 0)
            named[name] = Target(name, found.host, "", found.port, ssh_config=str(path))
    return Inventory(tuple(named.values()), {}, OPENSSH)


def _names(
    file: files.ConfigFile, within: tuple[files.ConfigLine, ...]
) -> Iterator[tuple[str, str]]:
    """Name and place. ``within``: the Host lines that the file is included under."""
    for block in file.blocks:
        is_host = block.head is not None and block.head.keyword == "host"
        if block.head is not None and is_host:
            for name in block.head.words:
                if not set(name) & set("*?!") and all(_fits(name, line) for line in within):
                    yield name, block.head.place
        inner = (*within, block.head) if block.head is not None and is_host else within
        for item in block.body:
            if isinstance(item, files.ConfigFile):
                yield from _names(item, inner)


def _fits(name: str, line: files.ConfigLine) -> bool:
    if any(words.fits(name, word[1:]) for word in line.words if word.startswith("!")):
        return False
    return any(words.fits(name, word) for word in line.words if not word.startswith("!"))
