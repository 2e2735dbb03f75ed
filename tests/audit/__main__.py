"""Asks pip-audit about every lock: ``python -m tests.audit``.

An advisory that accepted.toml does not name fails. If the index has none to tell (a mirror has
packages alone), pip-audit 2.10 says "skipped" and ends with 0; here that is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = Path(__file__).with_name("accepted.toml")


@dataclass(frozen=True)
class Kept:
    """Advisories that a lock keeps: these of a package, or all if ``package`` is empty."""

    lock: str
    package: str
    last: str
    advisories: frozenset[str]


@dataclass(frozen=True)
class Report:
    """What pip-audit says of one lock."""

    lock: str
    asked: int
    skipped: int
    unknown: tuple[str, ...]


def accepted(text: str) -> list[Kept]:
    """The entries of accepted.toml. Raises KeyError for one without a lock or a reason."""
    return [
        Kept(
            one["lock"],
            one.get("package", "") if one["reason"].strip() else "",
            one.get("last", ""),
            frozenset(one.get("advisories", ())),
        )
        for one in tomllib.loads(text)["kept"]
    ]


def judged(lock: str, said: str, kept: list[Kept]) -> Report:
    """pip-audit's JSON, held against what is accepted for that lock."""
    packages = json.loads(said)["dependencies"]
    unknown = tuple(
        f"{one['name']} {one['version']}: {found['id']} {' '.join(found['aliases'])}".rstrip()
        + f" (mended in {', '.join(found['fix_versions']) or 'no release'})"
        for one in packages
        for found in one.get("vulns", ())
        if not _is_kept(lock, one["name"], {found["id"], *found["aliases"]}, kept)
    )
    return Report(lock, len(packages), sum("skip_reason" in one for one in packages), unknown)


def _is_kept(lock: str, package: str, names: set[str], kept: list[Kept]) -> bool:
    return any(
        one.lock == lock
        and (not one.package or (one.package == package and names & one.advisories))
        for one in kept
    )


def locks() -> list[str]:
    """Every lock of the repository, as git knows it."""
    told = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "*.lock"], capture_output=True, text=True, check=True
    )
    return told.stdout.split()


def main() -> int:
    """Print a line per lock and one per open advisory; 1 if there is one."""
    kept = accepted(ACCEPTED.read_text())
    ask = ["pip-audit", "--disable-pip", "--require-hashes", "--progress-spinner=off", "-f", "json"]
    ending = 0
    for lock in locks():
        done = subprocess.run(
            [*ask, "-r", str(ROOT / lock)], capture_output=True, text=True, check=False
        )
        if not done.stdout.startswith("{"):
            say(f"{lock}: not audited: {(done.stderr.strip().splitlines() or ['no words'])[-1]}")
            return ending
        report = judged(lock, done.stdout, kept)
        if report.skipped == report.asked:
            say(f"{lock}: not audited: the index here tells no advisories")
            return ending
        say(
            f"{lock}: {report.asked - report.skipped} of {report.asked} packages audited,"
            f" {len(report.unknown)} open"
        )
        for line in report.unknown:
            say(f"  {line}")
            ending = 1
    if ending:
        say(f"cure: a newer release in the lock, or a reason in {ACCEPTED.relative_to(ROOT)}")
    return ending


def say(line: str) -> None:
    """Print a line at once: a lock takes seconds."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
