"""A node laid out as a folder, an engine on it, and a prover that answers as it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.engine.engine import Engine
from agent.facts import Containerd, Facts
from agent.formats.proposal import Proof
from agent.journal import transaction
from agent.node.host import Host, Unit
from agent.node.tree import Tree
from agent.wire.plan import Plan, Registry, Verify
from agent.wire.report import Event, ResultEvent, event_to_json
from tests.agent.authority import Authority

DEBIAN_CONFIG = b"""version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"""

# Answers as containerd does, with the file itself in place of a merged dump.
FAKE_CONTAINERD = """#!/bin/sh
case "$*" in
*--version) echo "containerd github.com/containerd/containerd 1.7.24 abc" ;;
"config default") printf 'version = 2\\n[plugins."io.containerd.grpc.v1.cri".registry]\\n' ;;
"--config "*" config dump") cat "$2" ;;
*) exit 1 ;;
esac
"""
UNIT = "[Service]\nExecStart=/usr/bin/containerd\n"


class Prover:
    """Stands in for the registry and CRI: says yes, or raises what it was given for a step."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.errors: dict[str, BaseException] = {}
        self.reasons: dict[str, str] = {}

    def _answer(self, step: str) -> None:
        self.asked.append(step)
        if step in self.errors:
            raise self.errors[step]

    def ask_registry(self, plan: Plan, address: str | None = None) -> None:
        self._answer("beforehand" if address else "registry")

    def cri_serves(self, socket_path: str) -> bool:
        return "cri" not in self.errors or "cri" not in self.asked  # it served before we came

    def wait_for_cri(self, socket_path: str) -> None:
        self._answer("cri")

    def pull(self, proof: Proof, registry: Registry, verify: Verify, seconds: float) -> None:
        self._answer("pull")

    def trusts(self, proof: Proof, plan: Plan) -> None:
        self._answer("files")

    def cannot(self, proof: Proof) -> str:
        return self.reasons.get(proof.kind, "")


def spelled(*paths: str) -> list[str]:
    """The paths of a registry on the usual port, each with its twin for images named with it."""
    twins = ((path, path.replace("/my.registry.io/", "/my.registry.io:443/")) for path in paths)
    return [one for pair in twins for one in dict.fromkeys(pair)]


class Box:
    """A laid-out node and what can be done with it."""

    def __init__(self, root: Path, ca: str) -> None:
        self.root = root
        self.ca = ca
        self.prover = Prover()
        self.restarted: list[str] = []

    def write(self, path: str, content: bytes, mode: int = 0o644) -> Path:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)
        return target

    def read(self, path: str) -> bytes | None:
        target = self.root / path.lstrip("/")
        return target.read_bytes() if target.is_file() else None

    def with_containerd(self, config: bytes | None = DEBIAN_CONFIG) -> Box:
        self.write("/usr/bin/containerd", FAKE_CONTAINERD.encode(), 0o755)
        self.write("/lib/systemd/system/containerd.service", UNIT.encode())
        if config is not None:
            self.write("/etc/containerd/config.toml", config)
        return self

    def with_docker(self) -> Box:
        (self.root / "etc/docker").mkdir(parents=True, exist_ok=True)
        return self

    def document(self, **more: Any) -> dict[str, Any]:
        registry = {"host": "my.registry.io", "address": "10.0.0.1", "ca": self.ca}
        registry.update(more.pop("registry", {}))
        verify = {"image": "my.registry.io/app:1", "username": "u", "password": "pass-word-1"}
        return {"version": 1, "registry": registry, "verify": verify, **more}

    def plan(self, **more: Any) -> Plan:
        return Plan.parse(json.dumps(self.document(**more)).encode())

    def engine(self) -> Engine:
        host = Host(str(self.root))
        host.restart = lambda name, timeout=0: self.restarted.append(name)  # type: ignore[method-assign]
        return Engine(host, self.prover)

    def run(self, events: Iterator[Event]) -> dict[str, Any]:
        """All events of an operation; the result, with the others under ``events``."""
        told = list(events)
        assert isinstance(told[-1], ResultEvent)
        result = event_to_json(told[-1])
        result["events"] = [event_to_json(event) for event in told]
        result["code"] = (result["error"] or {}).get("code")
        return result

    def apply(self, dry_run: bool = False, **more: Any) -> dict[str, Any]:
        return self.run(self.engine().apply(self.plan(**more), dry_run))

    def untrust(self, **more: Any) -> dict[str, Any]:
        return self.run(self.engine().untrust(self.plan(**more)))

    def files(self) -> dict[str, bytes]:
        """Every file of the node but the agent's own notes."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and "var/lib/moorage" not in str(path)
        }

    def folders(self) -> set[str]:
        return {
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_dir() and "var" not in path.relative_to(self.root).parts
        }


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def box(tmp_path: Path, authority: Authority) -> Box:
    root = tmp_path / "node"
    root.mkdir()
    made = Box(root, authority.pem)
    made.write("/etc/hosts", b"127.0.0.1\tlocalhost\n::1 ip6-localhost\n")
    return made


@pytest.fixture(autouse=True)
def steps() -> Iterator[None]:
    yield
    transaction.on_step = lambda name: None


def facts(root: Path, config: bytes | None, version: tuple[int, int, int] = (1, 7, 24)) -> Facts:
    """Facts about a containerd with a given file, as if it merged nothing into it."""
    tree = Tree(str(root))
    unit = Unit("containerd.service", active=True, argv=("/usr/bin/containerd",))
    file = tree.read("/etc/containerd/config.toml")
    found = Containerd(
        binary="/usr/bin/containerd",
        version=version,
        unit=unit,
        config=file,
        merged=b"" if file.content is None else config,
    )
    return Facts("node", tree, None, found)
