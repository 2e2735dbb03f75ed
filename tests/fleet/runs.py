"""The operator: a copy of the project in a folder of its own, and whole runs of its commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from moorage.archive import agent_archive
from moorage.settings import ROOT, Settings

Event = dict[str, Any]


class Run:
    """One command under way, its JSON lines heard as they come."""

    def __init__(self, argv: Sequence[str], folder: Path, hear: Callable[[Event], None]) -> None:
        self.events: list[Event] = []
        self._hear = hear
        self.words = (folder / "words.log").open("w+b")
        self.process = subprocess.Popen(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.words,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith(b"\n"):  # cut off by the kill
                break
            event = json.loads(line)
            self.events.append(event)
            self._hear(event)

    def kill(self) -> None:
        """As a lost power supply would."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self, seconds: float) -> int:
        code = self.process.wait(seconds)
        self._reader.join()
        self.words.seek(0)
        said = self.words.read().decode(errors="replace")
        self.words.close()
        if "Traceback" in said:
            raise AssertionError(said[-3000:])
        return code

    @property
    def report(self) -> Event:
        """The last line's document; {} where there is none."""
        last = self.events[-1] if self.events else {}
        return last if last.get("event") == "report" else {}

    @property
    def results(self) -> list[Event]:
        return [one for one in self.events if one.get("event") == "result"]


@dataclass
class Operator:
    """``settings``: what invoke.yaml says."""

    folder: Path
    settings: dict[str, Any]
    runs: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for name in ("moorage", "agent"):
            shutil.copytree(
                ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(ROOT / "tasks.py", self.folder)
        (self.folder / "invoke.yaml").write_text(yaml.safe_dump(self.settings))
        agent_archive(Settings().state)
        private = self.folder / ".moorage"
        private.mkdir(mode=0o700, exist_ok=True)
        shutil.copytree(Settings().state / "agent", private / "agent")

    def start(self, *words: str, hear: Callable[[Event], None] = lambda _: None) -> Run:
        argv = [sys.executable, "-m", "invoke", *words]
        return Run(argv, self.folder, hear)

    def ask(self, *words: str) -> Event:
        """A command's one document."""
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *words, "--json"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=600,
        )
        if b"Traceback" in done.stderr or not done.stdout:
            raise AssertionError(done.stderr.decode(errors="replace")[-3000:])
        document: Event = json.loads(done.stdout)
        return document

    def logbook(self) -> list[Event]:
        """The lines of the newest rollout on disk; one that was cut off is left out."""
        newest = max((self.folder / ".moorage" / "rollouts").glob("*.jsonl"))
        lines = []
        for line in newest.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines


def once(seconds: float, true: Callable[[], bool]) -> bool:
    """Waits until something is so. Returns whether it came to be in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
