"""Many names in one word, ``node[01-16].lan``, as ClusterShell and pdsh users write them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from moorage.errors import Refused

MAX_HOSTS = 10_000
# Digits only: [fd00::3] is an address, and ClusterShell's own operators (!, &, @) stay outside.
_RANGE = re.compile(r"\[[0-9][0-9,-]*(?:/[0-9]+)?\]")
_WORD = re.compile(r"(?:[^,\[]|\[[^\]]*\]?)+")


def split(text: str) -> list[str]:
    """``a,node[1-3,7],b`` -> its words; a comma within brackets does not part them."""
    words = []
    rest = text
    while True:
        match = _WORD.match(rest)
        word = match[0] if match else ""
        words.append(word.strip())
        if len(word) == len(rest):
            return words
        rest = rest[len(word) + 1 :]


def expand(word: str) -> list[str]:
    """``admin@node[01-03].lan:2222`` -> a word for each node; any other word as it is.

    Raises Refused (``bad-hosts``) for a range that runs backwards, has other things than numbers
    in it, or names more than ``MAX_HOSTS`` hosts.
    Source: https://clustershell.readthedocs.io/en/latest/tools/nodeset.html
    """
    if not _RANGE.search(word):
        return [word]
    from ClusterShell.NodeSet import NodeSet, NodeSetException, RangeSetParseError

    user, at, rest = word.rpartition("@")
    stem, colon, port = rest.partition(":")
    try:
        names = NodeSet(stem, resolver=_no_groups())
        count = len(names)
    except (NodeSetException, RangeSetParseError, ValueError) as problem:
        raise _bad(word, str(problem)) from None
    if count > MAX_HOSTS:
        raise _bad(word, f"it stands for {count} hosts; {MAX_HOSTS} are allowed")
    return [f"{user}{at}{name}{colon}{port}" for name in names]


def fold(names: Iterable[str]) -> str:
    """Many names as few words, for people: ``node[01-03],db1``. Names it cannot fold stay."""
    numbered: list[str] = []
    rest: list[str] = []
    for name in names:
        # An address is no numbered name: 10.0.[0-1].[1-3] would be hard to read.
        plain = re.fullmatch(r"[A-Za-z0-9._-]+", name) and not re.fullmatch(r"[0-9.]+", name)
        (numbered if plain else rest).append(name)
    if len(numbered) + len(rest) == 1:  # a row of a table each: ClusterShell takes a while
        return (numbered or rest)[0]
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    try:
        folded = str(NodeSet.fromlist(numbered, resolver=_no_groups()))
    except NodeSetException:
        folded = ",".join(numbered)
    return ",".join([word for word in (folded, *rest) if word])


def _no_groups() -> object:
    from ClusterShell.NodeSet import RESOLVER_NOGROUP

    return RESOLVER_NOGROUP


def _bad(word: str, cause: str) -> Refused:
    return Refused(
        "bad-hosts",
        f"{word!r} is not a range of hosts",
        cause=cause,
        cure="write it as node[01-16].lan or rack[1-3]-n[1,4-6]",
    )
