"""Prometheus' text format 0.0.4, written: families of samples in, the text out. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

CONTENT_TYPE = "text/plain"
COUNTER, GAUGE = "counter", "gauge"


class Sample(NamedTuple):
    """One value of a family and the labels that tell it from the others."""

    value: float
    labels: Mapping[str, str] = {}


class Family(NamedTuple):
    """One metric. ``name`` follows https://prometheus.io/docs/practices/naming: the unit at its
    end, ``_total`` for a counter. A family without samples is left out."""

    name: str
    kind: str
    words: str
    samples: tuple[Sample, ...]


def single(name: str, kind: str, words: str, value: float | None) -> Family:
    """A family of one value without labels; without samples if the value is None."""
    return Family(name, kind, words, () if value is None else (Sample(value),))


def text(families: Iterable[Family], labels: Mapping[str, str] | None = None) -> str:
    """The families as Prometheus reads them; ``labels`` are those that every sample has."""
    common = labels or {}
    lines: list[str] = []
    for one in families:
        if one.samples:
            lines.append(f"# HELP {one.name} {_escaped(one.words, quote=False)}")
            lines.append(f"# TYPE {one.name} {one.kind}")
            lines += [
                f"{one.name}{_labels({**common, **told.labels})} {told.value}"
                for told in one.samples
            ]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    told = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(told)}}}" if labels else ""


def _escaped(value: str, *, quote: bool = True) -> str:
    """Backslash and line feed, and in a label's value the double quote."""
    found = value.replace("\\", "\\\\").replace("\n", "\\n")
    return found.replace('"', '\\"') if quote else found
