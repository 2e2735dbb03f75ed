"""The settings: where each value comes from, and what is wrong with them."""

from __future__ import annotations

from typing import Any

from invoke.collection import Collection

from moorage.errors import Refused
from moorage.tasks.command import Run, command


@command(help={"changed": "only values that differ from their default"})
def show(run: Run, changed: bool = False) -> dict[str, Any]:
    """Show each setting and where its value comes from: default, file, environment or -f.

    Example: inv config.show --changed
    Example: inv config.show --json
    """
    from moorage.configuration import origins

    settings = [
        one
        for one in origins.settings_in(run.sources)
        if one.place.partition(".")[0] in origins.SECTIONS
    ]
    usual = {one.place: one.value for one in origins.settings_in(run.sources[:1])}
    shown = [one for one in settings if not changed or one.value != usual.get(one.place)]
    rows = [[one.place, _written(one.value), one.source] for one in shown]
    if rows:
        run.ui.table(("setting", "value", "from"), rows)
    else:
        run.ui.show("every setting has its default")
    return {
        "ok": True,
        "settings": [one._asdict() for one in shown],
        "files": _files(run),
        "profile": run.settings.profile,
    }


@command(reads_settings=False)
def check(run: Run) -> dict[str, Any]:
    """Check every settings file and INVOKE_* variable, and name everything that is wrong.

    Exit code 2 if something is. What -f names is checked too: inv -f FILE config.check.
    Example: inv config.check
    Example: inv config.check --json
    """
    import os

    from moorage.configuration import checking
    from moorage.program import reading

    found = checking.problems(run.sources, os.environ)
    found += [] if found else reading.shared_with_others(run.sources)
    found += [] if found else _named_files(run)
    document = {
        "ok": not found,
        "files": _files(run),
        "profile": run.settings.profile,
        "problems": [problem.to_json() for problem in found],
    }
    if not found:
        run.ui.show(f"the settings are right: {', '.join(_files(run)) or 'defaults alone'}")
        return document
    for problem in found[:-1]:
        run.ui.error(problem)
    run.ui.document({**document, "error": found[0].to_json()})
    raise found[-1]


def _named_files(run: Run) -> list[Refused]:
    """What is wrong with the files of a client's pair that the settings name."""
    from moorage.configuration import origins, parsing
    from moorage.registry.logins import client_pair

    try:
        client_pair.read(parsing.parse(origins.merged(run.sources)))
    except Refused as problem:
        return [problem]
    return []


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value) or "-"


def _files(run: Run) -> list[str]:
    """The files that were read, the one that wins last."""
    return [source.name for source in run.sources if source.name]


namespace = Collection("config", show, check)
