"""What the end-to-end tests do to this machine: run `inv` as a user would, and look at it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
RUN = str(ROOT / "run")
LABEL = f"io.moorage.project={ROOT}"


@dataclass(frozen=True)
class Answer:
    """What one `inv` command said."""

    code: int
    document: dict[str, Any]
    words: str

    @property
    def hosts(self) -> dict[str, dict[str, Any]]:
        """The hosts' results by name."""
        return {host["host"]: host for host in self.document["hosts"]}


def inv(*words: str, **variables: str) -> Answer:
    """Runs `./run inv WORDS --json` without a terminal. Raises where stdout is not one document."""
    done = subprocess.run(
        [RUN, "inv", *words, "--json"],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    try:
        document = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(
            f"inv {' '.join(words)}: no document (exit {done.returncode}):\n"
            f"{done.stdout}\n{done.stderr}"
        ) from None
    return Answer(done.returncode, document, done.stderr)


def good(*words: str, **variables: str) -> Answer:
    """The same, and it must have ended well."""
    answer = inv(*words, **variables)
    assert answer.code == 0, f"inv {' '.join(words)}: {answer.document}\n{answer.words}"
    return answer


def start(*words: str) -> subprocess.Popen[str]:
    """Starts `inv WORDS` in a process group of its own, its words on a pipe."""
    return subprocess.Popen(
        [RUN, "inv", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stop_at(process: subprocess.Popen[str], words: str, delay: float, number: int) -> bool:
    """Sends ``number`` to ``process`` ``delay`` seconds after it said ``words``.

    Returns whether it was still at work then. SIGKILL goes to the whole group, as a lost power
    supply would.
    """
    assert process.stderr is not None
    said = _wait_for(process.stderr, words)
    time.sleep(delay)
    alive = process.poll() is None
    if number == signal.SIGKILL:
        os.killpg(process.pid, signal.SIGKILL)
    elif alive:
        process.send_signal(number)
    process.stderr.read()
    process.wait(timeout=120)
    return said and alive


def _wait_for(stream: IO[str], words: str) -> bool:
    return any(words in line for line in stream)


def docker(*words: str, check: bool = True) -> str:
    """Runs the docker CLI. Returns its stdout, stripped."""
    return shell(["docker", *words], check=check)


def shell(argv: Sequence[str], *, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    if check:
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def ours() -> list[str]:
    """The names of all containers that carry our label; none where no engine answers any more."""
    listing = ("ps", "-a", "--filter", f"label={LABEL}", "--format", "{{.Names}}")
    return docker(*listing, check=False).split()


def node(name: str, command: str, *, check: bool = True) -> str:
    """Runs a shell command inside the lab node ``name``."""
    return docker("exec", f"moorage-{name}", "sh", "-c", command, check=check)


def containerd_pid(name: str) -> str:
    return node(name, "systemctl show -p MainPID --value containerd")


@dataclass(frozen=True)
class Machine:
    """What `inv down` has to give back."""

    hosts_file: bytes
    hosts_stat: tuple[int, int, int]
    docker_certs: frozenset[str]

    @classmethod
    def look(cls) -> Machine:
        hosts = Path("/etc/hosts")
        stat = hosts.stat()
        certs = Path("/etc/docker/certs.d")
        return cls(
            hosts.read_bytes(),
            (stat.st_mode, stat.st_uid, stat.st_gid),
            frozenset(str(path) for path in certs.rglob("*")) if certs.exists() else frozenset(),
        )
