"""Which nodes a command is about: what users write -> Targets.

``targets`` reads one host, ``ranges`` expands ``node[01-16].lan``, ``ansible`` and ``listing`` read
files, ``selection`` puts them together. Nothing here resolves a name; what SSH makes of one is
decided in ``moorage.fleet.openssh``.
"""

from __future__ import annotations

from moorage.fleet.inventory.targets import (
    Target,
    given_twice,
    parse_hosts,
    parse_names,
    targets_of,
)

__all__ = ["Target", "given_twice", "parse_hosts", "parse_names", "targets_of"]
