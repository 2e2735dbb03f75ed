"""Where each setting comes from. Pure: sources in the order in which they win, values out.

Invoke lays its sources over each other in this order, each over those before it: defaults,
``/etc/invoke.yaml``, ``~/.invoke.yaml``, the project's file, the environment, ``-f FILE``
(https://docs.pyinvoke.org/en/stable/concepts/configuration.html).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from moorage import settings
from moorage.configuration import parsing

DEFAULT = "default"

# Sections of Invoke's own.
INVOKES_OWN = frozenset(
    ("tasks", "run", "sudo", "runners", "timeouts", "namespaces", "fabric", "connect_kwargs")
)
SECTIONS = frozenset(settings.defaults())
# Files of this project alone: in the others, sections of other projects may stand.
_OURS = frozenset(("project", "runtime"))


class SettingSource(NamedTuple):
    """What one file, or the environment, says.

    ``kind`` is one of default, system, user, project, environment and runtime; ``name`` is the
    file's path as it was read, else empty; ``values`` has sections of keys.
    """

    kind: str
    name: str
    values: Mapping[str, Any]


class Setting(NamedTuple):
    """One value: ``place`` is its dotted key, ``origin`` the kind of its source.

    ``source`` is how the source is called: a path, an ``INVOKE_*`` variable, or ``default``.
    """

    place: str
    value: Any
    origin: str
    source: str


def variable_of(place: str) -> str:
    """The variable of the environment that stands for a setting: ``INVOKE_REGISTRY_PORT``."""
    return f"INVOKE_{place.replace('.', '_').upper()}"


def settings_in(sources: Sequence[SettingSource]) -> list[Setting]:
    """Every value that counts, in the order of the first source (the defaults).

    Sections of keys of the user's own (``nodes.groups``) are laid over each other key by key.
    """
    found: dict[str, Setting] = {}
    for source in sources:
        for place, value in _leaves(source.values):
            found[place] = Setting(place, value, source.kind, _called(source, place))
    inner = [place.rpartition(".")[0] for place in found]
    return [
        setting for place, setting in found.items() if setting.value != {} or place not in inner
    ]


def giver(sources: Sequence[SettingSource], place: str) -> str:
    """Who gave the value at ``place``, as a user would call it: for messages.

    A place that no source has is answered for by the project's file, or what stands for it.
    """
    said = {setting.place: setting for setting in settings_in(sources)}
    while place and place not in said:
        place = place.rpartition(".")[0]
    if place and said[place].origin != DEFAULT:
        return said[place].source
    project = next((source.name for source in sources if source.kind == "project"), "")
    return project or "invoke.yaml"


def refuse_unknown(sources: Sequence[SettingSource], environment: Mapping[str, str]) -> None:
    """Raises Refused for a section, or a variable, that names no setting."""
    for source in sources:
        if source.kind in _OURS:
            parsing.unknown_sections(source.values, INVOKES_OWN, source=source.name)
    parsing.unknown_variables(environment)


def merged(sources: Sequence[SettingSource]) -> dict[str, Any]:
    """The sections of settings with the values that count; as Invoke merges them."""
    whole: dict[str, Any] = {}
    for source in sources:
        _lay(whole, source.values)
    return {section: whole.get(section, {}) for section in settings.defaults()}


def _lay(below: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = below.setdefault(key, {})
            _lay(inner, value)
        else:
            below[key] = value


def _called(source: SettingSource, place: str) -> str:
    if source.kind == "environment":
        return variable_of(place)
    return source.name or source.kind


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        place = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{place}.")
        else:
            yield place, value
