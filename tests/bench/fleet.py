"""The fleet's figures: 16 lab nodes, whole commands, beside pyinfra 3, ansible-core and plain ssh.

By hand, `nox -s bench -- --fleet`: it stands the registry and sixteen nodes up, and takes minutes.
Every peer reaches the same end state: hosts entry, containerd trust, one restart. Between cold runs
each node is put back, by the engine and not by any of the tools. Beside the clock stands what a run
took of processors: of the operator's, by the command and its children, and of the nodes', by the
accounting of their containers' cgroups. An agent that stays settles after the answer; the clock
ends with the answer, and a node's processor time when its agent serves.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from agent.wire.report import NOT_PROVEN
from moorage.settings import Settings
from tests.bench.container import Container
from tests.bench.measure import Row, Spent, in_turn, limited, paired, spent
from tests.environment import environment

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).with_name("peers")
RUN = str(ROOT / "run")
CLEAN = """
set -e; cd /root
if [ -e /etc/systemd/system/moorage-agent.service ]; then
  systemctl disable -q --now moorage-agent
  rm /etc/systemd/system/moorage-agent.service; systemctl daemon-reload
fi
if [ ! -d clean ]; then mkdir clean; cp /etc/hosts clean/; cp /etc/containerd/config.toml clean/; fi
cat clean/hosts > /etc/hosts
rm -rf /etc/containerd/certs.d /var/lib/moorage /root/.ansible
if ! cmp -s clean/config.toml /etc/containerd/config.toml; then
  cp clean/config.toml /etc/containerd/config.toml
  systemctl reset-failed containerd; systemctl restart containerd
fi
lab-ready 30
"""
# How long an agent that stays may take until it serves.
SETTLE_SECONDS = 60.0


@dataclass(frozen=True)
class Fleet:
    """The nodes under test, and how each tool is told to bring them to the end state."""

    names: tuple[str, ...]
    config: Path
    build: Path
    variables: Mapping[str, str]
    containers: tuple[Container, ...]

    def first(self, count: int) -> Fleet:
        """The same with no more than so many nodes."""
        return replace(self, names=self.names[:count], containers=self.containers[:count])

    def ours(self, *more: str) -> list[str]:
        return [RUN, "inv", "nodes.trust", f"--hosts={','.join(self.names)}", "--no-verify",
                "--waves=100%", "--canary=0", *more]  # fmt: skip

    def pyinfra(self) -> list[str]:
        inventory = self.build / f"inventory-{len(self.names)}.py"
        data = {"ssh_config_file": str(self.config), "ssh_user": "root"}
        inventory.write_text(f"nodes = {[(name, data) for name in self.names]!r}\n")
        return [str(self.build / "bin" / "pyinfra"), "-y", str(inventory), str(PEERS / "deploy.py")]

    def ansible(self) -> list[str]:
        inventory = self.build / f"inventory-{len(self.names)}.ini"
        python = "ansible_python_interpreter=/usr/bin/python3"
        inventory.write_text("".join(f"{name} {python}\n" for name in self.names))
        given = {
            "registry": self.variables["BENCH_NAME"],
            "address": self.variables["BENCH_ADDRESS"],
            "ca": self.variables["BENCH_CA"],
        }
        return [str(self.build / "bin" / "ansible-playbook"), "-i", str(inventory),
                "-e", json.dumps(given), str(PEERS / "playbook.yml")]  # fmt: skip

    def ssh(self) -> list[str]:
        calls = " ".join(f"ssh -F {self.config} {name} true &" for name in self.names)
        return ["sh", "-c", f"{calls} wait"]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.variables,
            "ANSIBLE_FORKS": "16",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_SSH_ARGS": f"-F {self.config} -o ControlMaster=no",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        }

    def clean(self) -> None:
        roster = ROOT / "certs" / "fleet" / "nodes.json"
        roster.unlink(missing_ok=True)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(_clean, self.names))

    def run(self, argv: Sequence[str], *, settles: bool = False) -> Callable[[], Spent]:
        """A run of ``argv``, measured; ``settles``: until an agent serves on each node."""

        def run() -> Spent:
            before = self._processor_seconds()
            done = spent(argv, self.environment(), (0, NOT_PROVEN))  # none is asked for a proof
            for one in self.containers if settles else ():
                _wait_for_agent(one.address)
            return replace(done, nodes=self._processor_seconds() - before)

        return run

    def _processor_seconds(self) -> float:
        return sum(one.processor_seconds() for one in self.containers)


def rows(count: int = 16, runs: int = 5) -> list[Row]:
    """Measures all of them. Raises RuntimeError where a tool does not reach the end state."""
    everyone = stand_up(count)
    one = everyone.first(1)
    tools = {
        "once": everyone.run(everyone.ours("--once")),
        "stays": everyone.run(everyone.ours(), settles=True),
        "pyinfra": everyone.run(everyone.pyinfra()),
        "ansible": everyone.run(everyone.ansible()),
        "once, one": one.run(one.ours("--once")),
        "stays, one": one.run(one.ours(), settles=True),
        "pyinfra, one": one.run(one.pyinfra()),
    }
    cold = in_turn(tools, runs, before=lambda _tool: everyone.clean())
    return [*_cold(cold, count), *_warm(everyone, runs), *_warm(one, runs)]


def _cold(took: Mapping[str, Sequence[Spent]], count: int) -> list[Row]:
    once, stays = f"cold, once, {count} nodes", f"cold, agent stays, {count} nodes"
    whole, added = "operator's processor per node", "operator's processor per node added to one"
    return [
        _clocks(f"{once} / pyinfra", took["once"], took["pyinfra"], 1.0),
        _clocks(f"{stays} / pyinfra", took["stays"], took["pyinfra"], 1.2),
        _clocks(f"{once} / ansible", took["once"], took["ansible"], 0.08),
        _clocks("cold, once, one node / pyinfra", took["once, one"], took["pyinfra, one"], 0.8),
        _operators(f"{once}, {whole} / pyinfra", took, "once", count),
        _operators(f"{stays}, {whole} / pyinfra", took, "stays", count),
        _added(f"{once}, {added} / pyinfra", took, "once", count),
        _added(f"{stays}, {added} / pyinfra", took, "stays", count),
        _nodes(f"{once}, a node's processor", took["once"], count, 250),
        _nodes(f"{stays}, a node's processor until its agent serves", took["stays"], count, 680),
    ]


def _clocks(name: str, ours: Sequence[Spent], peer: Sequence[Spent], target: float) -> Row:
    return paired(name, [one.clock for one in ours], [one.clock for one in peer], "s", target)


def _nodes(name: str, took: Sequence[Spent], count: int, limit: float) -> Row:
    return limited(name, [one.nodes / count * 1000 for one in took], limit, "ms")


# Beside pyinfra's: this, and not the shared cores of a lab, bounds a fleet of a thousand machines.
OPERATORS = 0.35


def _operators(name: str, took: Mapping[str, Sequence[Spent]], ours: str, count: int) -> Row:
    """The whole command, its start included, shared out among its nodes."""
    each, theirs = ([one.operator / count * 1000 for one in took[who]] for who in (ours, "pyinfra"))
    return paired(name, each, theirs, "ms", OPERATORS)


def _added(name: str, took: Mapping[str, Sequence[Spent]], ours: str, count: int) -> Row:
    """What a node more is, to a command that goes to one anyway: of a thousand, nearly all."""
    each, theirs = (
        [
            (many.operator - one.operator) / (count - 1) * 1000
            for many, one in zip(took[who], took[f"{who}, one"], strict=True)
        ]
        for who in (ours, "pyinfra")
    )
    return paired(name, each, theirs, "ms", OPERATORS)


def stand_up(count: int) -> Fleet:
    """The registry, the peers' environment, and ``count`` nodes that nothing was done to yet."""
    build = environment("peers", PEERS / "requirements.lock")
    for words in (["registry.up", "--yes"], ["image.build", "image.push"], ["lab.down"],
                  ["lab.up", "--yes", f"--nodes=2*{count}"]):  # fmt: skip
        subprocess.run([RUN, "inv", *words], check=True, stdout=subprocess.DEVNULL)
    names = tuple(f"lab{number}" for number in range(1, count + 1))
    variables = {
        "BENCH_NAME": "my.registry.io",
        "BENCH_ADDRESS": _address(names[0]),
        "BENCH_CA": str(ROOT / "certs" / "ca.crt"),
    }
    containers = tuple(Container.of(f"moorage-{name}") for name in names)
    return Fleet(names, ROOT / ".moorage" / "lab" / "ssh_config", build, variables, containers)


def _warm(fleet: Fleet, runs: int) -> list[Row]:
    """Each in the end state of its own: pyinfra's block beside our line would be a table twice."""
    tools = {"ours": fleet.ours(), "pyinfra": fleet.pyinfra(), "ssh": fleet.ssh()}
    took: dict[str, list[Spent]] = {}
    for tool, argv in tools.items():
        run = fleet.run(argv)
        if tool != "ssh":
            fleet.clean()
            fleet.run(argv, settles=tool == "ours")()
        took |= in_turn({tool: run}, runs)
    several = len(fleet.names) > 1
    what = f"{len(fleet.names)} nodes" if several else "one node"
    found = [_clocks(f"warm, {what} / pyinfra", took["ours"], took["pyinfra"], 0.35)]
    if several:
        found.append(_clocks(f"warm, {what} / ssh true", took["ours"], took["ssh"], 0.7))
    return found


def _wait_for_agent(address: str) -> None:
    """From outside, for what is run in the node would count as the node's own."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            socket.create_connection((address, Settings().nodes.agent_port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no agent serves at {address}") from None
            time.sleep(0.02)


def _clean(name: str) -> None:
    done = subprocess.run(
        ["docker", "exec", f"moorage-{name}", "sh", "-c", CLEAN],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} cannot be put back: {done.stdout}{done.stderr}")


def _address(node: str) -> str:
    """This machine's address as the nodes see it: the gateway of their network."""
    argv = ["docker", "exec", f"moorage-{node}", "ip", "-json", "route", "show", "default"]
    done = subprocess.run(argv, capture_output=True, check=True)
    return str(json.loads(done.stdout)[0]["gateway"])
