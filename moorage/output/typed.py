"""How a command of Moorage is typed here: ``./run inv …``, or ``inv …`` in its environment.

Each command of a profile's names the profile, and what is called invoke.yaml is the profile's file.
"""

from __future__ import annotations

import os
import re
from typing import Any

# Set by ``run``; what people read says ``inv``, whoever wrote it: this side, or an agent.
VARIABLE = "MOORAGE_TYPED"
# Whose this run is, and how a command names it (moorage.configuration.profiles).
PROFILE, OPTION = "INVOKE_PROFILE", "--profile"
# One that is whole as it stands, behind ./run, is for another folder.
_COMMAND = re.compile(r"--bundle \S+ inv |(?<![\w./-])(?<!run )inv (?=[A-Za-z-])")
_FILE = re.compile(r"(?<![\w./-])invoke\.yaml\b")
# The keys of a document that hold commands to type.
_TYPED_KEYS = frozenset(("cure", "next"))


def file_of(profile: str) -> str:
    """The name of a profile's file of settings; ``profile``: empty for the usual one."""
    return f"invoke.{profile}.yaml" if profile else "invoke.yaml"


def typed(text: str) -> str:
    """The text with each of its commands as it must be typed here."""
    prefix = os.environ.get(VARIABLE, "inv")
    profile = os.environ.get(PROFILE, "")
    if prefix == "inv" and not profile:
        return text
    text = _FILE.sub(file_of(profile), text)

    def whole(command: re.Match[str]) -> str:
        if command[0].startswith("--bundle"):
            return command[0]
        named = text.startswith(OPTION, command.end())  # for another profile
        return f"{prefix} " if named or not profile else f"{prefix} {OPTION}={profile} "

    return _COMMAND.sub(whole, text)


def changes() -> bool:
    """Whether :func:`typed` would change anything in this run."""
    return VARIABLE in os.environ or bool(os.environ.get(PROFILE))


def typed_document(document: Any, *, is_typed: bool = False) -> Any:
    """A JSON-ready document whose cures and next steps can be typed; all else is as it was."""
    if isinstance(document, str):
        return typed(document) if is_typed else document
    if isinstance(document, dict):
        return {
            key: typed_document(one, is_typed=is_typed or key in _TYPED_KEYS)
            for key, one in document.items()
        }
    if isinstance(document, list | tuple):
        return [typed_document(one, is_typed=is_typed) for one in document]
    return document
