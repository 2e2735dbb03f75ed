"""The command line of ``ssh``, as others write it down: Ansible's variables, a ProxyCommand. Pure.

Source: ssh(1), SYNOPSIS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    """The words after ``ssh``. Raises Malformed for an option that cannot be used.

    Options may follow the destination too; what follows them then is a command.
    """
    draft, left = _ArgumentsDraft(), list(words)
    rest: list[str] = []
    while left:
        word = left.pop(0)
        if word == "--":
            break
        if word.startswith("-") and word != "-":
            draft.take(word[1:], left)
        elif rest:
            left.insert(0, word)
            break
        else:
            rest.append(word)
    return CommandLine(tuple(draft.options), draft.config, draft.forwards, (*rest, *left))


@dataclass
class _ArgumentsDraft:
    options: list[str] = field(default_factory=list)
    config: str = ""
    forwards: str = ""

    def take(self, letters: str, left: list[str]) -> None:
        """One word's letters; the last may have its value in the word or in the next."""
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _FAMILIES:
                self.options.append(_FAMILIES[letter])
            elif letter in _IDLE:
                continue
            elif letter in _IDLE_WITH or letter in _SAME or letter in "oFW":
                value, letters = letters or (left.pop(0) if left else ""), ""
                if not value:
                    raise Malformed(f"nothing follows -{letter}")
                self._give(letter, value)
            else:
                raise Malformed(f"-{letter} is not an option of ssh that can be used here")

    def _give(self, letter: str, value: str) -> None:
        if letter == "o":
            self.options.append(value)
        elif letter in _SAME:
            self.options.append(f"{_SAME[letter]}={quoted(value)}")
        elif letter == "F":
            self.config = self.config or value
        elif letter == "W":
            self.forwards = value


def quoted(value: str) -> str:
    """A value of one word, for a line of a configuration."""
    return f'"{value}"' if set(value) & set(" \t#'") else value
