"""Profiles: several registries from one checkout, each with settings and state of its own.

``--profile=NAME``, before or after the task, or INVOKE_PROFILE. Such a run reads
``invoke.NAME.yaml`` in the place of ``invoke.yaml``, and keeps what it makes in ``profiles/NAME``
(:attr:`moorage.settings.Settings.home`). Pure but for :func:`there`
and :func:`said`, which look.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from moorage.errors import Refused
from moorage.output.typed import OPTION, PROFILE, file_of

# The name of what no option asks for: ``invoke.yaml``, and state in the checkout itself.
DEFAULT = "default"
# A part of names that Docker, Kubernetes and file systems take, however they put it together.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")
# What our own containers end in: moorage-registry-front, moorage-registry-cache-docker.io.
_OURS = re.compile(r"(?:.*-)?(?:front|cache-.*)")
_SUFFIXES = ("yaml", "yml", "json", "py")  # what Invoke reads


class ProfiledLine(NamedTuple):
    """A command line without the words that choose a profile, and what they choose."""

    words: list[str]
    profile: str


class Checkout(NamedTuple):
    """A folder with a checkout, and one of its profiles or nothing."""

    folder: str
    profile: str


def checkout_of(home: str) -> Checkout:
    """What :attr:`moorage.settings.Settings.home` was made from."""
    folder, _, profile = home.rpartition("/profiles/")
    found = bool(folder and _NAME.fullmatch(profile))
    return Checkout(folder, profile) if found else Checkout(home, "")


def current(environment: Mapping[str, str]) -> str:
    """The profile of this run; empty for ``invoke.yaml``."""
    return environment.get(PROFILE, "")


def options(environment: Mapping[str, str]) -> list[str]:
    """The words that choose this run's profile, to be typed behind ``inv``."""
    name = current(environment)
    return [f"{OPTION}={name}"] if name else []


def chosen(words: Sequence[str], environment: Mapping[str, str]) -> ProfiledLine:
    """Takes the profile out of a command line; an option wins over the environment.

    What stands behind ``--`` is not ours, unless a shell asks for completion: then that is the
    line. Raises Refused (``bad-profile``).
    """
    kept: list[str] = []
    names: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--" and "--complete" not in kept:
            kept += [word, *rest]
        elif word == OPTION:
            name = next(rest, "")
            if not name and "--complete" in kept:
                kept.append(word)  # its value is what is completed
            else:
                names.append(_required(name))
        elif word.startswith(f"{OPTION}="):
            names.append(_required(word.partition("=")[2]))
        else:
            kept.append(word)
    if len(set(names)) > 1:
        raise Refused(
            "bad-profile",
            f"one command is for one profile, not for {' and '.join(dict.fromkeys(names))}",
            cause=f"{OPTION} was given more than once",
            cure="run the command once per profile",
        )
    name = names[0] if names else environment.get(PROFILE, "")
    return ProfiledLine(kept, _checked(name) if name else "")


def there(folder: Path) -> list[str]:
    """The profiles whose settings are in ``folder``, by their names."""
    found = (path.name.split(".") for path in folder.glob("invoke.*.*"))
    names = {words[1] for words in found if len(words) == 3 and words[2] in _SUFFIXES}
    usable = (name for name in names if _NAME.fullmatch(name) and not _OURS.fullmatch(name))
    return sorted(name for name in usable if name != DEFAULT)


def said(folder: Path, name: str) -> dict[str, Any]:
    """What a profile's file in ``folder`` says. Nothing, if it cannot be read: its own run tells
    that."""
    import yaml

    stem = file_of(name).removesuffix("yaml")
    paths = (folder / f"{stem}{suffix}" for suffix in ("yaml", "yml", "json"))
    try:
        content = next((path.read_bytes() for path in paths if path.exists()), b"")
        document = yaml.safe_load(content)
        json.dumps(document, default=str)  # an alias that leads into itself is no settings
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def require(folder: Path, name: str) -> None:
    """Raises Refused (``no-profile``) unless the settings of the profile are in ``folder``."""
    known = there(folder)
    if name in known:
        return
    exist = f"profiles that exist: {', '.join(known)}" if known else "no profile exists"
    raise Refused(
        "no-profile",
        f"there is no profile {name}: {folder / file_of(name)} does not exist",
        cause=f"{exist}; without {OPTION}, invoke.yaml applies",
        cure=f"inv {OPTION}={known[0]} config.show"
        if known
        else f"cp invoke.yaml {file_of(name)}, give it a registry.host, registry.port and "
        "registry.metrics_port of its own, then run this again",
        path=str(folder / file_of(name)),
    )


def _required(name: str) -> str:
    if name and not name.startswith("-"):
        return name
    raise Refused(
        "bad-profile",
        f"{OPTION} needs a name",
        cause="nothing, or an option, follows it",
        cure=f"give a name, as {OPTION}=staging; {OPTION}={DEFAULT} stands for invoke.yaml",
    )


def _checked(name: str) -> str:
    if name == DEFAULT:
        return ""
    if _OURS.fullmatch(name):
        raise Refused(
            "bad-profile",
            f"invalid profile {name[:40]!r}: its registry would have another container's name",
            cause="containers of Moorage's own end in -front and -cache-NAME",
            cure="choose another name, and call its settings invoke.NAME.yaml",
        )
    if _NAME.fullmatch(name):
        return name
    shown = name if len(name) <= 40 else f"{name[:40]}..."
    raise Refused(
        "bad-profile",
        f"invalid profile {shown!r}: at most 32 of a-z, 0-9 and '-', a letter first, no '-' last",
        cause="the name becomes a part of file, container and Kubernetes names",
        cure=f"choose another name, and call its settings invoke.NAME.yaml; {OPTION}={DEFAULT} "
        "stands for invoke.yaml",
    )
