"""What became of the hosts: one table, the diffs of a dry run, failures grouped by their cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.wire.report import HostResult
from moorage.fleet.inventory.ranges import fold
from moorage.fleet.report.waves import SMALL
from moorage.output import Line, Parts, Patch, Table, lines

NOT_PROVEN = "not proven"


@dataclass(frozen=True)
class FleetReport:
    """The outcome on all hosts, in the order they were given.

    ``runtimes``: host -> "containerd 1.7.24". ``diffs``: host -> path -> unified diff, filled by a
    dry run and a diff. ``states``: host -> what the agent keeps there, filled by a status
    (agent.wire.report's StatusEvent). ``histories``, ``findings``: host -> what was done there,
    newest first; which strategies apply there (HistoryEvent, ExplainEvent). ``images``: host ->
    what its runtimes have (ImagesEvent). ``interrupted``: the signal that stopped it, else 0; hosts
    not begun say so. ``halted``: why failures stopped it, else "".
    """

    hosts: tuple[HostResult, ...]
    runtimes: Mapping[str, str] = field(default_factory=dict)
    diffs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    findings: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dry_run: bool = False
    interrupted: int = 0
    halted: str = ""

    @property
    def ok(self) -> bool:
        return all(result.ok for result in self.hosts)

    @property
    def proven(self) -> bool:
        """Whether nothing of what was done is left without its proof."""
        return not any(result.ok and result.unproven for result in self.hosts)

    def stop_if_interrupted(self) -> None:
        """Raises KeyboardInterrupt where the user stopped it: what came after it is not to come."""
        if self.interrupted:
            raise KeyboardInterrupt(self.interrupted)

    def to_json(self) -> dict[str, Any]:
        """``ok``, ``proven``, ``hosts``, ``runtimes``, and what the command filled of the others.

        ``proven`` is false where a host that is well has parts that no proof shows anything of.
        """
        document: dict[str, Any] = {
            "ok": self.ok,
            "proven": self.proven,
            "hosts": [result.to_json() for result in self.hosts],
            "runtimes": dict(self.runtimes),
        }
        if self.halted:
            document["halted"] = self.halted
        if self.dry_run:
            document["dry_run"] = True
        if self.dry_run or self.diffs:
            document["diffs"] = {host: dict(files) for host, files in self.diffs.items()}
        if self.states:
            document["states"] = {host: dict(state) for host, state in self.states.items()}
        if self.images:
            document["images"] = {host: dict(found) for host, found in self.images.items()}
        for name, rows in (("histories", self.histories), ("findings", self.findings)):
            if rows:
                document[name] = {host: [dict(one) for one in told] for host, told in rows.items()}
        return document


def parts(report: FleetReport) -> Parts:
    """The whole report for people: diffs first, since they are long, then table and failures."""
    for files in report.diffs.values():
        yield from map(Patch, files.values())
    if len(report.hosts) > SMALL:
        yield from outcome_parts(report)
    else:
        yield from host_parts(report.hosts, report.runtimes, dry_run=report.dry_run)


def outcome_parts(report: FleetReport) -> Parts:
    """Many hosts: a line an outcome instead of one a host, and below it a line a cause."""
    groups: dict[tuple[str, str, str], list[HostResult]] = {}
    for result in report.hosts:
        files = len(result.changes)
        changed = f"{files} file{'s' if files > 1 else ''}" if files else "-"
        key = (_status(result, report.dry_run), changed, ", ".join(result.restarts) or "-")
        groups.setdefault(key, []).append(result)
    rows = []
    for (status, changed, restarts), results in groups.items():
        pulls = sorted(one.pull_seconds for one in results if one.pull_seconds is not None)
        pulled = f"{_seconds(pulls[0])} to {_seconds(pulls[-1])}" if pulls else ""
        if any(one.ok and one.unproven for one in results):
            pulled = "\n".join(word for word in (pulled, NOT_PROVEN) if word)
        names = fold(result.host for result in results)
        rows.append([str(len(results)), status, changed, restarts, pulled, names])
    yield Table(["nodes", "status", "what changed", "restarted", "pulled in", "which"], rows)
    yield from lines((*stopped(report.hosts), *failures(report.hosts), *unproven(report.hosts)))


def host_parts(
    results: Sequence[HostResult], runtimes: Mapping[str, str], *, dry_run: bool = False
) -> Parts:
    """The table of all hosts and, below it, what to do about those that failed."""
    columns = ["node", "status", "runtime", "what changed", "restarted", "pulled in"]
    rows = [_row(result, runtimes.get(result.host, ""), dry_run) for result in results]
    yield Table(columns, rows)
    yield from lines((*stopped(results), *failures(results), *unproven(results)))


def history_parts(report: FleetReport) -> Parts:
    """The table of what was done on each node and when, newest first."""
    rows = []
    for result in report.hosts:
        for one in report.histories.get(result.host, ()):
            who = f"{one['by']} from {one['from']}" if one["from"] else one["by"]
            what = str(one["operation"])
            if one["undone_by"]:
                what += f", undone by {one['undone_by']}"
            files = "\n".join(f"{change['action']} {change['path']}" for change in one["changes"])
            number, restarts = str(one["number"]), ", ".join(one["restarts"])
            rows.append([result.host, number, one["time"], what, one["registry"], who,
                         files or "-", restarts or "-"])  # fmt: skip
    columns = ["node", "no.", "when (UTC)", "what", "registry", "by", "files", "restarted"]
    if rows:
        yield Table(columns, rows)
    for result in report.hosts:
        if result.ok and not report.histories.get(result.host):
            yield Line(f"{result.host}: nothing was ever done here")
    yield from lines(failures(report.hosts))


def image_parts(report: FleetReport) -> Parts:
    """The table of what each node's runtimes have, ids and bare digests left out."""
    rows = [
        [host, str(name)]
        for host, found in report.images.items()
        for name in found["names"]
        if not str(name).startswith("sha256:")
    ]
    if rows:
        yield Table(["node", "image"], rows)
    for host, found in report.images.items():
        for one in found["unasked"]:
            yield Line(f"{host}: {one['part']} could not be asked: {one['because']}")
        if not found["names"] and not found["unasked"]:
            yield Line(f"{host}: its runtimes have no image")
    yield from lines(failures(report.hosts))


def finding_parts(report: FleetReport) -> Parts:
    """A table for each node: the strategies of each part, and why each applies or does not."""
    for result in report.hosts:
        found = report.findings.get(result.host)
        if found is None:
            continue
        yield Line(f"{result.host}: {report.runtimes.get(result.host, '')}")
        rows = [
            [one["part"], one["strategy"], "taken" if one["applies"] else "-", one["why"]]
            for one in found
        ]
        yield Table(["part", "strategy", "", "why"], rows)
    yield from lines(failures(report.hosts))


def _row(result: HostResult, runtime: str, dry_run: bool) -> list[str]:
    status = _status(result, dry_run)
    changed = "\n".join(f"{change.action} {change.path}" for change in result.changes)
    pulled = "" if result.pull_seconds is None else _seconds(result.pull_seconds)
    if not pulled and result.verified:
        pulled = "verified"
    if result.ok and result.unproven:
        pulled = "\n".join(word for word in (pulled, NOT_PROVEN) if word)
    return [result.host, status, runtime, changed or "-", ", ".join(result.restarts) or "-", pulled]


@dataclass(frozen=True)
class FailureGroup:
    """One failure and all the hosts that share it; ``names`` are folded: node[01-16]."""

    hosts: tuple[str, ...]
    code: str
    message: str
    cause: str
    cure: str

    @property
    def count(self) -> int:
        return len(self.hosts)

    @property
    def names(self) -> str:
        return fold(self.hosts)


def causes(results: Sequence[HostResult]) -> list[FailureGroup]:
    """The failures, each once, those of most hosts first."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for result in results:
        fault = result.error
        if fault is None:
            continue
        # The node's name inside the words would keep equal failures apart.
        words = (fault.message, fault.cause, fault.cure)
        message, cause, cure = (text.replace(result.host, "\0") for text in words)
        groups.setdefault((fault.code, message, cause, cure), []).append(result.host)
    found = []
    for (code, *alike), hosts in groups.items():
        name = hosts[0] if len(hosts) == 1 else "NODE"
        message, cause, cure = (text.replace("\0", name) for text in alike)
        found.append(FailureGroup(tuple(hosts), code, message, cause, cure))
    return sorted(found, key=lambda one: -one.count)


def failures(results: Sequence[HostResult]) -> list[str]:
    """Lines that report each failure once, with all the hosts that share it."""
    lines: list[str] = []
    for one in causes(results):
        names = ", ".join(one.hosts) if one.count <= SMALL else f"{one.count} nodes ({one.names})"
        lines.append(f"{names}: {one.message} [{one.code}]")
        lines += [
            f"  {title}: {text}"
            for title, text in (("cause", one.cause), ("cure", one.cure))
            if text
        ]
    return lines


def stopped(results: Sequence[HostResult]) -> list[str]:
    """Lines that report what ran before a restart and does not now."""
    return [
        f"{result.host}: not running since the restart: {', '.join(result.stopped)}"
        for result in results
        if result.stopped
    ]


def unproven(results: Sequence[HostResult]) -> list[str]:
    """Lines that report each part without a proof once, with all the hosts that share it."""
    groups: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for one in result.unproven if result.ok else ():
            groups.setdefault((one.part, one.because), []).append(result.host)
    return [
        f"{', '.join(hosts) if len(hosts) <= SMALL else f'{len(hosts)} nodes ({fold(hosts)})'}: "
        f"{part} is not proven, because {because}"
        for (part, because), hosts in groups.items()
    ]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def _status(result: HostResult, dry_run: bool) -> str:
    return "would change" if dry_run and result.status == "changed" else result.status


def summary(result: HostResult, *, dry_run: bool = False) -> str:
    """One host in one line, for the moment it is done."""
    if result.error is not None:
        return f"{result.host}: {result.status}: {result.error.message}"
    parts = [_status(result, dry_run)]
    if result.changes:
        parts.append(f"{len(result.changes)} file{'s' if len(result.changes) > 1 else ''}")
    done = "to restart" if dry_run else "restarted"
    parts += [f"{unit} {done}" for unit in result.restarts]
    if result.pull_seconds is not None:
        parts.append(f"pulled in {_seconds(result.pull_seconds)}")
    if result.ok and result.unproven:
        parts.append(f"{NOT_PROVEN}: {', '.join(dict.fromkeys(p.part for p in result.unproven))}")
    return f"{result.host}: {', '.join(parts)}"
