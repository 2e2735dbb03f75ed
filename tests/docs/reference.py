"""Reference pages made from the code: settings, tasks, error codes. Pure: text out.

``python -m tests.docs --write`` writes them; ``tests/unit/house/test_docs.py`` fails when they are
stale.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from invoke.collection import Collection

import tasks
from moorage.configuration import schema
from moorage.explanations import explanations
from moorage.program import pages
from moorage.settings import defaults, sections

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made from the code by: ./run python -m tests.docs --write -->"
TYPES = {
    "str": "text",
    "int": "whole number",
    "bool": "true or false",
    "tuple[str, ...]": "list",
    "Mapping[str, str]": "section of keys",
}


def made() -> dict[Path, str]:
    """Every generated page by its path."""
    pages_by_name = {"settings": settings(), "tasks": all_tasks(), "errors": errors()}
    made_pages = {FOLDER / f"{name}.md": text for name, text in pages_by_name.items()}
    for_editors = json.dumps(schema.schema(), indent=2, ensure_ascii=False) + "\n"
    return made_pages | {FOLDER / "invoke.schema.json": for_editors}


def stale(pages_made: dict[Path, str]) -> list[Path]:
    """Those whose file says something else."""
    return [
        path for path, text in pages_made.items() if not path.exists() or path.read_text() != text
    ]


def meanings() -> dict[str, dict[str, str]]:
    """What each setting is for, by section and key."""
    return tomllib.loads((ROOT / "moorage" / "meanings.toml").read_text())


def settings() -> str:
    """Every setting: type, default, meaning."""
    lines = [
        "# Settings",
        MADE,
        "They stand in `invoke.yaml`, in sections. A variable of the environment wins over the "
        "file: `INVOKE_REGISTRY_PORT=8443` is `port` of `registry`. A list is written as YAML or "
        "with commas. In each setting that is a path, a leading `~` is your home folder. "
        "`inv config.show` says where each value comes from, `inv config.check` what "
        "is wrong, and editors with a YAML language server complete and check keys by "
        "[invoke.schema.json](invoke.schema.json), which the first line of `invoke.yaml` names.",
        "What is laid over what, the last one wins: defaults, `/etc/invoke.yaml`, "
        "`~/.invoke.yaml`, `invoke.yaml`, the environment, `-f FILE`. With `--profile=NAME` (or "
        "`INVOKE_PROFILE`), `invoke.NAME.yaml` takes the place of `invoke.yaml`, and by default "
        "`registry.container`, `lab.prefix`, `kubernetes.secret`, `kubernetes.pod` and "
        "`kubernetes.agents_namespace` have the profile's name in them "
        "([more](../how-to/use-the-registry-you-have.md#several-from-one-checkout)).",
    ]
    kinds, known = sections(), meanings()
    for section, values in defaults().items():
        lines += [f"## {section}", "| key | type | default | meaning |", "|---|---|---|---|"]
        types = {one.name: str(one.type) for one in dataclasses.fields(kinds[section])}
        for key, default in values.items():
            kind = TYPES[types[key]]
            meaning = _cell(known[section][key])
            lines.append(f"| `{key}` | {kind} | {_default(default)} | {meaning} |")
    return _joined(lines)


def all_tasks() -> str:
    """Every task and option."""
    lines = [
        "# Tasks",
        MADE,
        "`inv` stands for `./run inv`, or for `inv` in the activated environment. Each task takes "
        "`--help` as well.",
    ]
    collection: Collection = tasks.namespace
    contexts = {str(one.name): one for one in collection.to_contexts()}
    for title, names in pages.GROUPS.items():
        lines.append(f"## {title}")
        for name in (one for place in names for one in _tasks_of(collection, place)):
            lines += _task(name, collection[name], contexts[name])
    return _joined(lines)


def _tasks_of(collection: Collection, name: str) -> list[str]:
    if name not in collection.collections:
        return [name]
    return [f"{name}.{one}" for one in collection.collections[name].task_names]


def _task(name: str, task: Any, context: Any) -> Iterator[str]:
    said = pages.words_of(task)
    yield f"### {name}"
    yield said.summary
    if said.text:
        yield "\n\n".join(" ".join(block.split()) for block in said.text.split("\n\n"))
    rows = [(pages.value(one), one.help or "") for one in context.positional_args]
    rows += [pages.row(one) for _, options in pages.sections(context) for one in options]
    table = ["| | |", "|---|---|"]
    yield "\n".join([*table, *(f"| `{_cell(flag)}` | {_cell(text)} |" for flag, text in rows)])
    typed = [f"$ {one.replace('inv ', './run inv ')}" for one in said.examples]
    yield "\n".join(["```console", *typed, "```"])


def errors() -> str:
    """Every error code: meaning, what was changed, cure."""
    lines = [
        "# Error codes",
        MADE,
        "Errors carry a code for programs (`--json`); it stays the same between versions. "
        "`inv explain CODE` says the same in a terminal.",
    ]
    for title, group in groupby(explanations().values(), key=lambda one: one.group):
        lines.append(f"## {title}")
        for one in group:
            lines += [
                f"### {one.code}",
                f"{_text(one.means)} {one.changed}",
                f"**Cure:** {_text(one.cure)}",
            ]
    return _joined(lines)


def _default(value: Any) -> str:
    if value in ("", {}):
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """Words as Markdown: what it would take for marks is kept as it is."""
    return text.replace("*", "\\*").replace("<", "\\<").replace("[[", "\\[\\[")


def _joined(lines: list[str]) -> str:
    """Blocks with an empty line between them; rows of one table without."""
    text = ""
    for line in lines:
        table = line.startswith("|") and text.endswith("|\n")
        text += line + "\n" if table or not text else f"\n{line}\n"
    return text.replace("\n\n\n", "\n\n")
