"""Schemathesis tries the running agent by the document that it serves itself.

The agent is the archive that nodes run, over real TLS, on a laid-out node. One check is left out:
that all a schema admits is accepted, since names and certificates are judged by more than a schema.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from moorage.archive import agent_archive
from tests.agent.authority import Authority
from tests.agent.conftest import Box
from tests.agent.fleet import Fleet
from tests.agent.resident import Resident

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("requirements.lock")


def main(arguments: list[str]) -> int:
    """``arguments``: how many examples an operation gets, 50 if none. Returns the exit code."""
    program = _environment() / "bin" / "st"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "node")
        root.mkdir()
        box = Box(root, Authority().pem).with_containerd()
        box.write("/etc/hosts", b"127.0.0.1\tlocalhost\n")
        (root / "usr/bin/openssl").symlink_to(shutil.which("openssl") or "/none")
        archive = agent_archive(Path(folder, "state")).path
        agent = Resident(box, Fleet(Path(folder)), archive)
        try:
            document = Path(folder, "openapi.json")
            document.write_bytes(agent.ask("GET", "/v1/openapi.json")[1])
            done = subprocess.run(
                [
                    *(program, "run", document, "--url", f"https://127.0.0.1:{agent.port}"),
                    *("--request-cert", agent.operator, "--tls-verify", "false"),
                    *("--max-examples", *(arguments or ["50"])),
                    *("--exclude-checks", "positive_data_acceptance"),
                ],
                cwd=folder,
                check=False,
            )
            alive = agent.process.poll() is None and b"a defect" not in agent.log.read_bytes()
        finally:
            agent.stop()
    return done.returncode or int(not alive)


def _environment() -> Path:
    """Its own, made anew when its lock changes."""
    folder = ROOT / "build" / "schemathesis"
    made = folder / "made-from.lock"
    if not made.exists() or made.read_bytes() != LOCK.read_bytes():
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "-qq", "install", "--require-hashes"]
        subprocess.run([*pip, "-r", str(LOCK)], check=True, stdout=sys.stderr)
        shutil.copy(LOCK, made)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
