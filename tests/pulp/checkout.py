"""An empty checkout of somebody who has no engine and no CA's key, and `inv` in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Answer:
    """What one ``inv`` said: its exit code, its document, its words."""

    code: int
    document: dict[str, Any]
    words: str

    def want(self, code: int = 0) -> Answer:
        """Itself, if it ended with ``code``."""
        assert self.code == code, f"exit code {self.code}, not {code}: {self.document} {self.words}"
        return self

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.document["error"])

    @property
    def host(self) -> dict[str, Any]:
        """The result of the only host."""
        (found,) = self.document["hosts"]
        return dict(found)


class Checkout:
    """What git has of this folder, and what is not committed yet, with these settings.

    ``commands``: how many `inv` were run in it.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.commands = folder, 0
        told = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
            check=True,
            capture_output=True,
            text=True,
        )
        for name in told.stdout.splitlines():
            if name.startswith(("tests/", "docs", "findings/")) or not (ROOT / name).is_file():
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        (folder / "invoke.yaml").write_text(yaml.safe_dump(settings))

    def inv(self, *words: str, stdin: str = "", hosts: Path | None = None) -> Answer:
        """``inv WORDS --json``; no engine answers there, and it leaves no traceback.

        ``hosts``: in the place of this machine's hosts file, for this command alone.
        """
        self.commands += 1
        start = self.folder / "moorage" / "program" / "start.py"  # as ./run starts it
        argv = [sys.executable, "-P", str(start), *words, "--json"]
        done = self.run(argv, stdin=stdin, hosts=hosts)
        assert "Traceback" not in done.stderr, done.stderr
        try:
            document = json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"no JSON from {words}: {done.stdout}{done.stderr}") from None
        return Answer(done.returncode, document, done.stderr)

    def run(
        self, argv: list[str], *, stdin: str = "", hosts: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Any program in the checkout (:meth:`inv`'s parameters)."""
        words = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        # Settings of this run's own checkout are none of that one's.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("INVOKE_")}
        inside = ["unshare", "--mount", "sh", "-c", words, "sh", str(hosts)] if hosts else []
        return subprocess.run(
            [*inside, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**kept, "DOCKER_HOST": "unix:///nowhere/docker.sock"},
            timeout=600,
            check=False,
        )
