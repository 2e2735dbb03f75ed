"""What ``%h`` and its kin, ``~`` and ``${NAME}`` stand for in a value. ssh_config(5), TOKENS."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from moorage.fleet.openssh.files import home, tilde
from moorage.fleet.openssh.words import Malformed

_TOKEN = re.compile(r"%(.?)")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def of(host: str, typed: str, port: int, user: str, local_user: str, alias: str) -> dict[str, str]:
    """The tokens of one route. ``typed``: the host as it was given."""
    node = socket.gethostname()
    return {
        "%": "%",
        "d": str(home()),
        "h": host,
        "i": str(os.getuid()),
        "k": alias or typed,
        "L": node.partition(".")[0],
        "l": node,
        "n": typed,
        "p": str(port),
        "r": user,
        "u": local_user,
    }


def expanded(text: str, tokens: Mapping[str, str]) -> str:
    """``text`` with its tokens replaced. Raises Malformed for one that is not known here."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise Malformed(f"{text}: %{found[1]} cannot be read here")
        return tokens[found[1]]

    return _TOKEN.sub(value, text)


def path(text: str, tokens: Mapping[str, str]) -> Path:
    """The file that ``text`` names: ``~``, tokens and ``${NAME}``. Raises Malformed."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise Malformed(f"{text}: there is no variable {found[1]}")
        return os.environ[found[1]]

    return tilde(_VARIABLE.sub(value, expanded(text, tokens)))
