"""The fleet's figures: 16 lab nodes, whole commands, beside pyinfra 3, ansible-core and plain ssh.

By hand, `nox -s bench -- --fleet`: it stands the registry and sixteen nodes up, and takes minutes.
Every peer reaches the same end state: hosts entry, containerd trust, one restart. Between cold runs
each node is put back, by the engine and not by any of the tools.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.wire.report import NOT_PROVEN
from tests.bench.measure import Row, in_turn
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


@dataclass(frozen=True)
class Fleet:
    """The nodes under test, and how each tool is told to bring them to the end state."""

    names: tuple[str, ...]
    config: Path
    build: Path
    variables: Mapping[str, str]

    def ours(self, *more: str) -> list[str]:
        return [RUN, "inv", "nodes.trust", f"--hosts={','.join(self.names)}", "--no-verify",
                "--waves=100%", "--canary=0", *more]  # fmt: skip

    def pyinfra(self) -> list[str]:
        inventory = self.build / "inventory.py"
        data = {"ssh_config_file": str(self.config), "ssh_user": "root"}
        inventory.write_text(f"nodes = {[(name, data) for name in self.names]!r}\n")
        return [str(self.build / "bin" / "pyinfra"), "-y", str(inventory), str(PEERS / "deploy.py")]

    def ansible(self) -> list[str]:
        inventory = self.build / "inventory.ini"
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

    def run(self, argv: Sequence[str]) -> Callable[[], None]:
        def run() -> None:
            done = subprocess.run(
                argv,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode not in (0, NOT_PROVEN):  # none is asked for a proof
                raise RuntimeError(f"{argv[:4]}: {done.stdout[-3000:]}{done.stderr[-3000:]}")

        return run


def rows(count: int = 16, runs: int = 5) -> list[Row]:
    """Measures all of them. Raises RuntimeError where a tool does not reach the end state."""
    everyone = stand_up(count)
    one = replace(everyone, names=everyone.names[:1])
    found: list[Row] = []
    for fleet, what in ((everyone, f"{count} nodes"), (one, "one node")):
        cold, warm = _cold(fleet, runs), _warm(fleet, runs)
        once, stays = f"cold, once, {what}", f"cold, agent stays, {what}"
        found.append(Row(f"{once} / pyinfra", cold["once"], cold["pyinfra"], "s", 0.8))
        if len(fleet.names) > 1:
            found.append(Row(f"{stays} / pyinfra", cold["stays"], cold["pyinfra"], "s", 1.0))
            found.append(Row(f"{once} / ansible", cold["once"], cold["ansible"], "s", 0.1))
            found.append(Row(f"warm, {what} / ssh true", warm["ours"], warm["ssh"], "s", 0.7))
        found.append(Row(f"warm, {what} / pyinfra", warm["ours"], warm["pyinfra"], "s", 0.35))
    return found


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
    return Fleet(names, ROOT / ".moorage" / "lab" / "ssh_config", build, variables)


def _cold(fleet: Fleet, runs: int) -> dict[str, float]:
    tools = {"once": fleet.ours("--once"), "pyinfra": fleet.pyinfra()}
    if len(fleet.names) > 1:
        tools |= {"stays": fleet.ours(), "ansible": fleet.ansible()}
    every = {tool: fleet.run(argv) for tool, argv in tools.items()}
    return in_turn(every, runs, before=lambda _tool: fleet.clean())


def _warm(fleet: Fleet, runs: int) -> dict[str, float]:
    """Each in the end state of its own: pyinfra's block beside our line would be a table twice."""
    found: dict[str, float] = {}
    for tool, argv in {
        "ours": fleet.ours(),
        "pyinfra": fleet.pyinfra(),
        "ssh": fleet.ssh(),
    }.items():
        run = fleet.run(argv)
        if tool != "ssh":
            fleet.clean()
            run()
        found |= in_turn({tool: run}, runs)
    return found


def _clean(name: str) -> None:
    done: Any = subprocess.run(
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
