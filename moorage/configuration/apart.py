"""What two profiles of one checkout must not share: a registry's data, keys, names. Pure.

Two registries over one folder each collect the other's images as garbage; two containers of one
name are one container, which either profile makes again as its own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moorage import settings
from moorage.configuration import origins, parsing
from moorage.configuration.origins import SettingSource
from moorage.configuration.paths import expanded
from moorage.configuration.profiles import DEFAULT
from moorage.errors import Refused
from moorage.output.typed import file_of

_PATHS = ("registry.data", "certs.dir", "upkeep.textfile")
_BACKUP = "upkeep.backup"  # a folder, or a place that restic reaches by a scheme
_NAMES = ("registry.container", "lab.prefix")
# What a profile for somebody else's registry has no use for.
_OUR_REGISTRYS = ("registry.data", "registry.container")


def sources_of(
    mine: Sequence[SettingSource], profile: str, given: Mapping[str, Any]
) -> tuple[SettingSource, ...]:
    """The sources of another profile: its defaults, what its file has (``given``), and those of
    this run that count for every profile."""
    own = {origins.DEFAULT: settings.defaults(profile), "project": given}
    return tuple(
        one._replace(values=own.get(one.kind, one.values)) for one in mine if one.kind != "runtime"
    )


def used(sources: Sequence[SettingSource], root: Path, profile: str) -> dict[str, str]:
    """What a profile has for itself, by the setting that says it: absolute paths, and names."""
    said = {one.place: one.value for one in origins.settings_in(sources)}
    external = str(said.get("registry.external", "")).lower() in ("true", "yes", "on", "1")
    found: dict[str, str] = {}
    for place in (*_PATHS, *_NAMES, _BACKUP):
        value = said.get(place)
        if not isinstance(value, str) or not value or (external and place in _OUR_REGISTRYS):
            continue
        with contextlib.suppress(Refused):  # each profile's own run refuses it
            value = expanded(place, value)
        if place in _PATHS:
            value = os.path.normpath(settings.home_of(root, profile) / value)
        elif place == _BACKUP:
            value = _backup(value)
        found[place] = value
    return found


def _backup(value: str) -> str:
    if re.match(r"[a-z0-9]+:", value):
        return value.rstrip("/")
    return os.path.abspath(value)  # noqa: PTH100  (takes .. away)


def shared(
    mine: Mapping[str, str], others: Mapping[str, Mapping[str, str]], giver: parsing.Giver
) -> Iterator[parsing.BadSetting]:
    """The refusals of what another profile uses as well. ``others``: by the profile's name."""
    for name, theirs in others.items():
        for place, value in mine.items():
            if theirs.get(place) == value:
                whose = f"{name or DEFAULT} ({file_of(name)})"
                expected = f"one of its own: {value} is used by the profile {whose} too"
                yield parsing.BadSetting(giver, place, expected)
