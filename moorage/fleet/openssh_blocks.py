"""One OpenSSH configuration, asked for thousands of hosts.

paramiko looks at every block for every host: 27 seconds for 1,000 hosts with a block each. Here it
is given those that can be about a host: its own, and all whose patterns or conditions may fit.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramiko import SSHConfig

_HEAD = re.compile(r"\s*(host|match)(?:\s*=\s*|\s+)(.+)", re.IGNORECASE)
# A name for which a lookup begins anew under another name: every block may be about that one.
_RENAMES = re.compile(r"^\s*canonicalizehostname\b", re.IGNORECASE | re.MULTILINE)


class Blocks:
    """``text``: all files of it, Includes replaced. Raises what paramiko makes of a bad line."""

    def __init__(self, text: str) -> None:
        from paramiko import SSHConfig

        self._whole = SSHConfig.from_text(text)
        self._renames = _RENAMES.search(text) is not None
        self._blocks: list[str] = []
        self._general: list[int] = []
        self._by_name: dict[str, list[int]] = {}
        self._parsed: dict[tuple[int, ...], SSHConfig] = {}
        for block in _blocks(text):
            names = _literal_names(block)
            for name in names:
                self._by_name.setdefault(name, []).append(len(self._blocks))
            if not names:
                self._general.append(len(self._blocks))
            self._blocks.append(block)

    def lookup(self, host: str) -> Mapping[str, str]:
        """The options for one host. Raises what paramiko raises, for Match exec and the like."""
        found: Mapping[str, str] = self._about(host).lookup(host)
        return found

    def _about(self, host: str) -> SSHConfig:
        from paramiko import SSHConfig

        if self._renames:
            return self._whole
        places = tuple(sorted({*self._general, *self._by_name.get(host, ())}))
        if host in self._by_name:
            return SSHConfig.from_text("".join(self._blocks[place] for place in places))
        if places not in self._parsed:
            text = "".join(self._blocks[place] for place in places)
            self._parsed[places] = SSHConfig.from_text(text)
        return self._parsed[places]


def _blocks(text: str) -> list[str]:
    """The text cut before each Host and Match line."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if _HEAD.match(line):
            blocks.append([])
        blocks[-1].append(line + "\n")
    return ["".join(lines) for lines in blocks]


def _literal_names(block: str) -> tuple[str, ...]:
    """The hosts that a block is about, where it names them and nothing else; else none."""
    head = _HEAD.match(block)
    if head is None or head[1].lower() != "host":
        return ()
    try:
        names = tuple(shlex.split(head[2]))
    except ValueError:
        return ()
    return () if any(set(name) & set("*?![]") for name in names) else names
