"""A case: one text file that says what stands on a node, and what the agent should make of it.

    tool: EKS with Amazon Linux 2023 (nodeadm)
    source: github.com/awslabs/amazon-eks-ami nodeadm/internal/containerd/config2.template.toml
    containerd: 2.1
    strategy: folder
    restart: no

    --- /etc/containerd/config.toml
    version = 3
    …
    --- /etc/docker/certs.d/other.registry.io/ca.crt
    @OTHER_CA@

Lines until the first ``---`` are the header; `#` begins a comment there. ``containerd`` may name
several lines (``1.6 1.7 2.1``); ``strategy`` and ``restart`` may be told for one of them, as
``strategy 2.1: move-legacy``. ``path`` is containerd's configuration where it is not the usual one;
``unit`` the service's name where it is not ``containerd.service``. ``@OTHER_CA@`` stands for the
certificate of a second registry, ``other.registry.io``, that has nothing to do with the trust: what
pulled from it before must pull afterwards. ``@BOM@`` stands for a byte order mark.

    --- /etc/containerd/certs.d -> /etc/docker/certs.d       a link
    +++ /etc/containerd/certs.d/quay.io/hosts.toml           what a colleague adds after the apply

What a colleague adds is there when the trust is taken away; what pulled before must pull then too.
Afterwards the colleague takes it out, and a second untrust gives every byte back.

``refused`` is the error's code where the agent must refuse, with every byte as it was; ``note``
words that the apply must say (a line of the header for each, ``note 2: …``); ``socket`` where CRI
listens if not in the usual place; ``flags`` what follows ``containerd`` in the service; ``parts``
the plan's, if more than ``containerd``. ``2.2`` and ``2.3``, which Debian does not carry, are tried
where ``--image`` names a node's image for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "cases"
CONFIG = "/etc/containerd/config.toml"
UNIT = "containerd.service"
SOCKET = "/run/containerd/containerd.sock"
DEBIANS = ("1.6", "1.7", "2.1")
LINES = (*DEBIANS, "2.2", "2.3")
_KEYS = {"tool", "source", "containerd", "strategy", "restart", "path", "unit", "refused", "note",
         "socket", "flags", "parts"}  # fmt: skip
_NEEDED = {"tool", "source", "containerd", "strategy", "restart"}


@dataclass(frozen=True)
class Case:
    """A case on one line of containerd."""

    name: str
    tool: str
    source: str
    line: str
    strategy: str
    restart: bool
    path: str
    unit: str
    files: dict[str, str]
    links: dict[str, str]
    added: dict[str, str]
    refused: str
    notes: tuple[str, ...]
    socket: str
    flags: str
    parts: tuple[str, ...]


def read_all(only: str = "") -> list[Case]:
    """Every case whose name has one of the words, once per line it names, in the files' order.

    ``only``: words with commas between them; an empty string stands for every case.
    """
    return [
        case
        for path in sorted(FOLDER.glob("*.case"))
        if any(word in path.stem for word in only.split(","))
        for case in read(path)
    ]


def read(path: Path) -> list[Case]:
    """The cases in a file. Raises ValueError with what is wrong with it, and where."""
    header, *sections = re.split(
        r"^(?:--- (?=/)|(?=\+\+\+ /))",
        path.read_bytes().decode("utf-8"),
        flags=re.MULTILINE,
    )
    said: dict[str, str] = {}
    for line in header.splitlines():
        key, colon, value = line.partition("#")[0].partition(":")
        if not line.partition("#")[0].strip():
            continue
        if not colon or key.split()[0] not in _KEYS:
            raise ValueError(f"{path.name}: {line!r} is no line of a case's header")
        said[" ".join(key.split())] = value.strip()
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    added: dict[str, str] = {}
    for section in sections:
        name, _, content = section.partition("\n")
        content = content.replace("@BOM@", "\ufeff")
        place, arrow, target = name.partition(" -> ")
        if arrow:
            links[place.strip()] = target.strip()
        elif name.startswith("+++ "):
            added[name[4:].strip()] = content
        else:
            files[name.strip()] = content
    lines = said.get("containerd", "").split()
    missing = _NEEDED - {key.split()[0] for key in said}
    if missing or not lines or not set(lines) <= set(LINES):
        raise ValueError(f"{path.name}: its header lacks {', '.join(sorted(missing)) or 'a line'}")
    return [
        Case(
            name=path.stem,
            tool=said["tool"],
            source=said["source"],
            line=line,
            strategy=said.get(f"strategy {line}", said.get("strategy", "")),
            restart=said.get(f"restart {line}", said.get("restart", "")) == "yes",
            path=said.get("path", CONFIG),
            unit=said.get("unit", UNIT),
            files=files,
            links=links,
            added=added,
            refused=said.get(f"refused {line}", said.get("refused", "")),
            notes=tuple(
                words
                for key, words in said.items()
                if key.split()[0] == "note" and not (set(key.split()[1:]) & set(LINES) - {line})
            ),
            socket=said.get("socket", SOCKET),
            flags=said.get("flags", ""),
            parts=tuple(said.get("parts", "containerd").split()),
        )
        for line in lines
    ]
