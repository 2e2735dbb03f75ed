"""A rollout's report as files: JSON for programs, one HTML page for people and tickets."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

from moorage.errors import MoorageError, Refused
from moorage.files import write_atomically
from moorage.fleet.report import FleetReport, causes


def require(stem: Path) -> None:
    """Raises Refused if no report could be written, before there is one to lose."""
    if stem.name and stem.parent.is_dir() and os.access(stem.parent, os.W_OK | os.X_OK):
        return
    raise Refused(
        "no-report",
        f"no report can be written to {stem}; nothing was changed",
        cause=f"{stem.parent} is not a folder, or you may not write in it",
        cure="name another place: --report=PATH, without an ending",
        path=str(stem),
    )


def write(report: FleetReport, command: str, stem: Path) -> tuple[Path, Path]:
    """Writes ``STEM.json`` and ``STEM.html``; returns both. Raises MoorageError if it cannot."""
    document, page = stem.with_suffix(".json"), stem.with_suffix(".html")
    try:
        text = json.dumps({"command": command, **report.to_json()}, indent=2, ensure_ascii=False)
        write_atomically(document, text.encode() + b"\n", mode=0o644)
        write_atomically(page, html(report, command).encode(), mode=0o644)
    except OSError as problem:
        raise MoorageError(
            "no-report",
            f"the report cannot be written to {stem}: {problem.strerror}",
            cause=f"{problem}; what was to be done on the nodes is done",
            cure="make room there; inv nodes.status shows the nodes",
            path=str(stem),
        ) from None
    return document, page


def html(report: FleetReport, command: str) -> str:
    """The page. Words of nodes are escaped: they are not ours."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    hosts = [
        {**result.to_json(), "runtime": report.runtimes.get(result.host, "")}
        for result in report.hosts
    ]
    counts = Counter(result.status for result in report.hosts).most_common()
    return environment.get_template("report.html.j2").render(
        command=command,
        at=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        counts=[(str(count), status) for status, count in counts],
        halted=report.halted,
        causes=causes(report.hosts),
        hosts=hosts,
    )
