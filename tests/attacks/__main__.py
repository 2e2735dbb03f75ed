"""Attacks a running agent and a running page in every way we know.

Each attempt is refused, logged, and changes no byte. The agent is the archive that nodes run, in a
process of its own, over real TLS, on a laid-out node; the page is `inv web` in a folder of its own.
Every byte of that node, and of that folder, is compared after each attempt.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.agent.resident import serving_archive
from tests.attacks import on_page, page
from tests.attacks.attempts import Attempt, In, all_attempts


@dataclass(frozen=True)
class Attacked:
    """What is attacked: its files, what its log says by now, and whether its process lives."""

    root: Path
    log: Callable[[], str]
    alive: Callable[[], bool]


def main() -> int:
    with serving_archive() as agent:
        one = Attacked(
            agent.box.root,
            lambda: agent.log.read_text(errors="replace"),
            lambda: agent.process.poll() is None,
        )
        tried, inside = _run(one, all_attempts(agent))
    with page.serving("--actions") as shown:
        one = Attacked(shown.folder, lambda: shown.logs, lambda: shown.process.poll() is None)
        more = _run(one, on_page.all_attempts(shown))
    tried, inside = tried + more[0], inside + more[1]
    print(f"attacks: {tried} tried, {inside} in")  # noqa: T201
    return 1 if inside else 0


def _run(attacked: Attacked, attempts: Iterable[Attempt]) -> tuple[int, int]:
    tried = inside = 0
    before = _look(attacked.root)
    for attempt in attempts:
        tried += 1
        bad, words = _tried(attacked, attempt, before)
        inside += bool(bad)
        print(f"{'--' if bad else 'ok'} {attempt.name}: {bad or words}", flush=True)  # noqa: T201
    return tried, inside


def _tried(attacked: Attacked, attempt: Attempt, before: dict[str, str]) -> tuple[str, str]:
    """What is bad about it, "" for nothing, and what was said to it."""
    said = len(attacked.log())
    try:
        words = attempt.run()
    except In as problem:
        return f"IN: {problem}", ""
    if changed := dict(_look(attacked.root).items() ^ before.items()):
        return f"IN: a byte changed: {', '.join(changed)}", words
    if not _logged(attacked, said, attempt.logged):
        return "NOT LOGGED", words
    return "" if attacked.alive() else "IN: its process is gone", words


def _logged(attacked: Attacked, since: int, word: str) -> bool:
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        if word in attacked.log()[since:]:
            return True
        time.sleep(0.02)
    return False


def _look(root: Path) -> dict[str, str]:
    """Every file below ``root``, keys and programs too.

    Left out: the generation, which the new operator's certificate raises, the logs, and what Python
    compiles.
    """
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "generation" and path.suffix not in (".log", ".pyc")
    }


if __name__ == "__main__":
    sys.exit(main())
