"""Attacks a running agent in every way we know; each is refused, logged, and changes no byte.

The agent is the archive that nodes run, in a process of its own, over real TLS, on a laid-out node:
every byte of that node is compared after each attempt.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

from tests.agent.resident import Resident, serving_archive
from tests.attacks.attempts import In, all_attempts


def main() -> int:
    with serving_archive() as agent:
        return _run(agent)


def _run(agent: Resident) -> int:
    tried = inside = 0
    before = _look(agent.box.root)
    for attempt in all_attempts(agent):
        tried += 1
        said = agent.log.stat().st_size
        try:
            words = attempt.run()
            bad = ""
        except In as problem:
            words, bad = "", f"IN: {problem}"
        if not bad and _look(agent.box.root) != before:
            bad = "IN: a byte of the node changed"
        if not bad and not _logged(agent, said, attempt.logged):
            bad = "NOT LOGGED"
        if not bad and agent.process.poll() is not None:
            bad = "IN: the agent is gone"
        inside += bool(bad)
        print(f"{'--' if bad else 'ok'} {attempt.name}: {bad or words}", flush=True)  # noqa: T201
    print(f"attacks: {tried} tried, {inside} in")  # noqa: T201
    return 1 if inside else 0


def _logged(agent: Resident, since: int, word: str) -> bool:
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        if word.encode() in agent.log.read_bytes()[since:]:
            return True
        time.sleep(0.02)
    return False


def _look(root: Path) -> dict[str, str]:
    """Every file of the node, the agent's own keys and programs too.

    Left out: the generation, which the new operator's certificate raises, and a request's own key.
    """
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "generation"
    }


if __name__ == "__main__":
    sys.exit(main())
