"""A diagnosis, and how a workload came up, in words for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moorage.output import Line, PartFailure, Parts, Table, Warn, lines

if TYPE_CHECKING:
    from moorage.cluster.diagnosis.diagnosis import Group
    from moorage.cluster.diagnosis.examine import Report
    from moorage.cluster.workload.deploy import Deployed

_SHOWN = 6


def diagnosis(report: Report) -> Parts:
    """Each cause with its nodes, pods, evidence and the one command that cures it."""
    yield from map(Warn, report.notes)
    yield from (Warn(f"{one.words}; cure: {one.cure}") for one in report.admins)
    if not report.groups:
        yield Line(f"Every one of {report.pods_seen} pods has its images.")
        return
    stuck = len({one.name for one in report.stuck})
    causes = len(report.groups)
    yield Line(
        f"{stuck} of {report.pods_seen} pods cannot pull, for"
        f" {causes} {'cause' if causes == 1 else 'causes'}."
    )
    for number, group in enumerate(report.groups, 1):
        yield Line("")
        yield Line(f"{number}. {group.title}  [{group.code}]")
        yield from lines(f"   {title:9} {text}" for title, text in _lines(group) if text)


def after_cures(report: Report) -> Parts:
    """What the cures have left; nothing is called cured while a pod still waits."""
    if not report.groups and not report.waiting:
        yield Line("Cured: every one of these pods has its images now.")
        return
    yield Line("After the cures:")
    if report.groups:
        yield from diagnosis(report)
    yield from lines(f"Not yet: {line}." for line in report.waiting)
    if report.waiting:
        yield Line("Look again in a while: inv k8s.diagnose")


def _lines(group: Group) -> list[tuple[str, str]]:
    return [
        ("nodes:", some(group.nodes)),
        ("pods:", some(group.pods)),
        ("image:", some(group.images)),
        ("cause:", group.cause),
        ("evidence:", group.evidence),
        ("cure:", group.cure + ("   (--fix does it)" if group.fix else "")),
    ]


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def deployed(image: str, done: Deployed, *, changed: bool) -> Parts:
    """The pods as kubectl shows them; the diagnosis where one cannot pull; what it answers."""
    yield Table(
        ["pod", "node", "ready", "status", "restarts"],
        [
            [
                one.name,
                one.node,
                "1/1" if one.stage == "ready" else "0/1",
                "Running" if one.stage in ("ready", "running") else one.stage,
                str(one.restarts),
            ]
            for one in done.pods
        ],
    )
    if done.report is not None:
        yield from diagnosis(done.report)
    if done.problem is not None:
        yield PartFailure(done.problem)
    if done.ok:
        words = "It" if changed else "Nothing changed: it"
        yield Line(f"{words} runs from {image} (ready after {done.seconds} s).")
        if done.answer:
            yield Line(f"serve_hostname answers: {done.answer}")
