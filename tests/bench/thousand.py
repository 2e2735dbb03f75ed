"""`nodes.status` of 1,000 resident agents: the whole command, over real mutual TLS 1.3 on loopback.

The agents are the real server (``agent.server``), as tasks of two processes, each with an address,
an id and a certificate of its own on a laid-out node that trusts the registry. They share this
machine's cores with the operator. Left out is what each node does on cores of its own: its timer
that looks for drift, and its look at the runtimes, by a process, once a minute when it is asked.
By hand: `nox -s bench -- --thousand`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.settings import ROOT
from tests.bench.measure import Row, limited

AGENTS = 1000
PORT = 7443
PROCESSES = 2
RUNS = 5
_INV = str(Path(sys.executable).with_name("inv"))


@dataclass(frozen=True)
class Simulated:
    """The agents that serve, and what the operator needs to ask them all."""

    names: tuple[str, ...]
    inventory: Path
    environment: dict[str, str]


def rows() -> list[Row]:
    """Wall clock and peak memory of the command, medians of ``RUNS`` after one to warm up."""
    with agents(AGENTS) as there:
        ask(there)
        spent = [ask(there) for _ in range(RUNS)]
    name = f"nodes.status of {AGENTS} agents"
    return [
        limited(name, [seconds for seconds, _ in spent], 4, "s"),
        limited(f"{name}, peak memory", [size for _, size in spent], 250, "MiB"),
    ]


def ask(there: Simulated) -> tuple[float, float]:
    """One whole command: seconds and MiB. Raises RuntimeError where an agent was not asked."""
    words = [_INV, "nodes.status", f"--inventory={there.inventory}", "--json"]
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        program = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, cwd=ROOT,
            env=there.environment,
        )  # fmt: skip
        assert program.stderr is not None
        words_said = program.stderr.read()
        _, status, usage = os.wait4(program.pid, 0)
        seconds = time.perf_counter() - began
        program.returncode = os.waitstatus_to_exitcode(status)
        program.stderr.close()
        out.seek(0)
        document: dict[str, Any] = json.loads(out.read() or b"{}")
    known = [name for name in there.names if "resident" in document.get("states", {}).get(name, {})]
    if program.returncode or len(known) != len(there.names):
        said = words_said.decode(errors="replace")[-2000:]
        raise RuntimeError(f"{len(known)} agents were asked, exit {program.returncode}: {said}")
    return seconds, usage.ru_maxrss / 1024


@contextlib.contextmanager
def agents(count: int) -> Iterator[Simulated]:
    """``count`` agents that serve, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as folder:
        there = _lay_out(Path(folder), count)
        with contextlib.ExitStack() as stack:
            for number in range(PROCESSES):
                argv = [sys.executable, "-m", "tests.bench.thousand", folder, str(number)]
                process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
                stack.callback(process.wait)
                stack.callback(process.terminate)
                assert process.stdout is not None
                if process.stdout.readline() != b"serving\n":
                    raise RuntimeError("the agents do not serve; their words stand above")
            yield there


def _lay_out(folder: Path, count: int) -> Simulated:
    """The operator's files, and a node's tree with keys and certificate for each agent."""
    from moorage.pki.authority import Authority
    from moorage.pki.roster import Resident, Roster
    from moorage.settings import CertsSettings, Settings
    from tests.adopted import adopt

    settings = Settings(certs=CertsSettings(dir=str(folder / "certs")))
    authority = Authority.open(settings)
    pattern = _trusting_node(folder)
    residents: dict[str, Resident] = {}
    names, lines = [], []
    for number in range(count):
        name, address = f"node{number:04}", f"127.1.{number // 250}.{number % 250 + 1}"
        root = folder / "nodes" / name
        shutil.copytree(pattern, root, copy_function=os.link, symlinks=True)
        names.append(name)
        residents[address] = adopt(authority, root, f"{number:032x}", address, PORT)
        lines.append(f"{name} ansible_host={address} ansible_user=root\n")
    for name, resident in residents.items():
        Roster(settings).put(name, resident)
    inventory = folder / "hosts.ini"
    inventory.write_text("".join(lines))
    environment = {**os.environ, "INVOKE_CERTS_DIR": str(folder / "certs")}
    return Simulated(tuple(names), inventory, environment)


def _trusting_node(folder: Path) -> Path:
    """A laid-out node with containerd on which an apply has been made."""
    from tests.agent.authority import Authority
    from tests.agent.conftest import Box

    root = folder / "pattern"
    root.mkdir()
    box = Box(root, Authority().pem).with_containerd()
    box.write("/etc/hosts", b"127.0.0.1\tlocalhost\n")
    done = box.apply()
    if done["status"] != "changed":
        raise RuntimeError(f"the node does not trust: {done}")
    return root


def _raise_limits() -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(folder: Path, part: int) -> None:
    """Every ``PROCESSES``-th agent below ``folder``, until this process is ended."""
    from agent.resident.home import Home
    from agent.server import snapshot, tls
    from agent.server.app import App
    from agent.server.gate import Gate, Http

    snapshot.FACTS_SECONDS = math.inf
    serving = []
    for root in sorted((folder / "nodes").iterdir())[part::PROCESSES]:
        home = Home(str(root))
        settings = home.settings()
        assert settings is not None
        app = App(str(root), settings, digest="0" * 64)
        gate = Gate(Http(app.handle), tls.context(home))
        gate.listen(settings.listen, settings.port)
        serving.append(asyncio.ensure_future(gate.serve()))
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    await asyncio.gather(*serving)


if __name__ == "__main__":
    _raise_limits()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
