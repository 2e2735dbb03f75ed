"""Schemathesis tries the running agent by the document that it serves itself.

The agent is the archive that nodes run, over real TLS, on a laid-out node. One check is left out:
that all a schema admits is accepted, since names and certificates are judged by more than a schema.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.agent.resident import serving_archive
from tests.environment import environment

LOCK = Path(__file__).with_name("requirements.lock")


def main(arguments: list[str]) -> int:
    """``arguments``: how many examples an operation gets, 50 if none. Returns the exit code."""
    program = environment("schemathesis", LOCK) / "bin" / "st"
    with serving_archive() as agent:
        folder = agent.box.root.parent
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
    return done.returncode or int(not alive)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
