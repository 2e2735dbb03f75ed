"""Builds the documentation in both languages and follows every link of what came out.

``python -m tests.docs``: checks that the generated pages are current, builds, checks.
``python -m tests.docs --write`` only writes the generated pages, ``--stale`` only checks them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.docs import links, reference
from tests.environment import environment

ROOT = reference.ROOT
SITE = ROOT / "build" / "site"
CONFIGURATIONS = ("zensical.toml", "zensical.zh.toml")


def main() -> int:
    if "--write" in sys.argv:
        for path, text in reference.made().items():
            path.write_text(text)
        return 0
    stale = reference.stale(reference.made())
    if stale:
        print(f"stale: {', '.join(map(str, stale))}; ./run python -m tests.docs --write")
        return 1
    if "--stale" in sys.argv:
        return 0
    started = time.monotonic()
    programs = environment("docs-venv", ROOT / "docs.lock") / "bin"
    shutil.rmtree(SITE, ignore_errors=True)
    for configuration in CONFIGURATIONS:
        _run(programs / "zensical", "build", "--clean", "--strict", "--config-file", configuration)
    dead = links.dead(SITE)
    for one in dead:
        print(f"dead: {one}")
    pages, followed = len(list(SITE.rglob("*.html"))), len(list(links.all_links(SITE)))
    spent = time.monotonic() - started
    print(f"{pages} pages in build/site, {followed} links, {len(dead)} dead, {spent:.1f} s")
    return 1 if dead or not followed else 0


def _run(program: Path, *words: str) -> None:
    """Raises SystemExit if the program ends with an error."""
    done = subprocess.run([program, *words], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{program.name} {Path(words[-1]).name} ended with {done.returncode}")


if __name__ == "__main__":
    raise SystemExit(main())
