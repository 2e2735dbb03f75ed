"""The command line of ``ssh``, as others write it down: Ansible's variables, a ProxyCommand. Pure.

Source: ssh(1), SYNOPSIS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moorage.fleet.openssh.words import Malformed

# What changes nothing of where we go, as whom and with what; the second row takes a value.
_IDLE, _IDLE_WITH = frozenset("12aACfgkKMnNqstTvxXyY"), frozenset("cDeELmRS")
# An option of ssh -> the keyword that says the same.
_SAME = {"b": "BindAddress", "i": "IdentityFile", "I": "PKCS11Provider", "J": "ProxyJump",
         "l": "User", "p": "Port", "P": "Tag", "B": "BindInterface"}  # fmt: skip
_FAMILIES = {"4": "AddressFamily=inet", "6": "AddressFamily=inet6"}


@dataclass(frozen=True)
class CommandLine:
    """``options``: each as ``Keyword=value``, in order. ``config``: what ``-F`` names.

    ``rest``: the words behind the options, the destination first.
    """

    options: tuple[str, ...] = ()
    config: str = ""
    forwards: str = ""
    rest: tuple[str, ...] = ()


def read(words: Sequence[str]) -> CommandLine:
    """The words after ``ssh``. Raises Malformed for an option that cannot be used."""
    options: list[str] = []
    config = forwards = ""
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            break
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _IDLE:
                continue
            if letter in _FAMILIES:
                options.append(_FAMILIES[letter])
                continue
            if letter not in (*_IDLE_WITH, *_SAME, "o", "F", "W"):
                raise Malformed(f"-{letter} is not an option of ssh that can be used here")
            value, letters = letters or (left.pop(0) if left else ""), ""
            if not value:
                raise Malformed(f"nothing stands after -{letter}")
            if letter == "o":
                options.append(value)
            elif letter in _SAME:
                options.append(f"{_SAME[letter]}={quoted(value)}")
            elif letter == "F":
                config = value
            elif letter == "W":
                forwards = value
    return CommandLine(tuple(options), config, forwards, tuple(left))


def quoted(value: str) -> str:
    """A value of one word, for a line of a configuration."""
    return f'"{value}"' if set(value) & set(" \t#'") else value
