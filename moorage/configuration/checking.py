"""Everything that is wrong with the settings, not only the first of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from moorage.configuration import origins, parsing
from moorage.configuration.origins import SettingSource
from moorage.errors import Refused


def problems(sources: Sequence[SettingSource], environment: Mapping[str, str]) -> list[Refused]:
    """Everything that any task would refuse in these sources; each names its source."""
    return [*_unknown(sources, environment), *_invalid(sources)]


def _unknown(sources: Sequence[SettingSource], environment: Mapping[str, str]) -> Iterator[Refused]:
    one_by_one: list[tuple[list[SettingSource], Mapping[str, str]]] = [
        ([source._replace(values={section: values})], {})
        for source in sources
        for section, values in source.values.items()
    ]
    variables: list[tuple[list[SettingSource], Mapping[str, str]]] = [
        ([], {name: value}) for name, value in environment.items()
    ]
    for given, variable in (*one_by_one, *variables):
        try:
            origins.refuse_unknown(given, variable)
        except Refused as problem:
            yield problem


def _invalid(sources: Sequence[SettingSource]) -> Iterator[Refused]:
    """What does not parse: each refused value is taken out, until the rest is right."""
    tree = origins.merged(sources)
    told = ""
    while True:
        try:
            parsing.parse(tree, source=partial(origins.giver, sources))
        except Refused as problem:
            if str(problem) == told:  # the default is in conflict with another value
                return
            told = str(problem)
            yield problem
            if not _taken_out(tree, getattr(problem, "place", "")):
                return
        else:
            return


def _taken_out(tree: dict[str, Any], place: str) -> bool:
    """Whether there was something at ``place``, which is gone now."""
    *above, key = place.split(".")
    within: Any = tree
    for name in above:
        within = within.get(name)
        if not isinstance(within, dict):
            return False
    if key not in within:
        return False
    del within[key]
    return True
