"""Several registries on one node: whatever is done in whichever order, each is as if alone.

All sequences of operations are walked, and after each one of them both registries are taken away
again in four ways. ``MOORAGE_SEQUENCES=5`` walks longer ones than a change waits for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest

from agent.engine.steps import Step
from agent.facts import gather
from agent.journal import withdrawal
from agent.node.host import Host
from agent.wire.faults import AgentError
from agent.wire.plan import Plan
from tests.agent.conftest import Box
from tests.agent.several import Disk, Node, Shape, by_hand, done, needs, of_before, put, wanted
from tests.agent.test_containerd_states import LEGACY, SEVERAL, V2, V3
from tests.agent.test_runtimes import BUILDKITD, K3S, lay_out

LENGTH = int(os.environ.get("MOORAGE_SEQUENCES", "3"))
ONE, TWO = "one", "two"
OTHER = {ONE: TWO, TWO: ONE}
OPERATIONS = ("apply one", "apply two", "apply one anew", "untrust one", "untrust two",
              "undo one", "undo two", "hand", "back")  # fmt: skip
WAYS = tuple(
    tuple(f"{verb} {name}" for name in order)
    for verb in ("untrust", "undo")
    for order in ((ONE, TWO), (TWO, ONE))
)


def line(content: bytes | None, number: int, text: str = "# by hand {}") -> bytes:
    """One more line at the end."""
    there = content or b""
    ended = there if not there or there.endswith(b"\n") else there + b"\n"
    return ended + text.format(number).encode() + b"\n"


def member(content: bytes | None, number: int) -> bytes:
    """One more key of a JSON object."""
    if content is None:
        return f'{{\n  "hand-{number}": true\n}}\n'.encode()
    head, brace, tail = content.rpartition(b"}")
    lead = b"," if head.strip() != b"{" else b""
    return head.rstrip() + lead + f'\n  "hand-{number}": true\n'.encode() + brace + tail


MOVED: dict[str, Any] = {"registry": {"address": "10.0.0.7", "names": ["cache.registry.io"]}}
SECOND: dict[str, Any] = {"registry": {"host": "two.registry.io", "port": 5000}}


class Case(NamedTuple):
    """A node, and what the plans of its two registries say; ``anew``: of the first one later."""

    lay: Callable[[Box], object]
    shared: tuple[str, ...]
    plan: dict[str, Any]
    anew: dict[str, Any] = MOVED
    two: dict[str, Any] = SECOND
    edit: Callable[[bytes | None, int], bytes] = line
    units: tuple[str, ...] = ()


def file(path: str, content: bytes | None, box: Box, mode: int = 0o644) -> None:
    if content is None:
        (box.root / path.lstrip("/")).unlink(missing_ok=True)
    else:
        box.write(path, content, mode)


def runtime(name: str, path: str, content: bytes | None, box: Box, mode: int = 0o644) -> None:
    lay_out(box, name)
    file(path, content, box, mode)


def templated(box: Box) -> None:
    box.write("/etc/cloud/templates/hosts.debian.tmpl", b"127.0.1.1 {{fqdn}}\n")
    box.write("/etc/os-release", b"ID=debian\n")
    box.write("/etc/cloud/cloud.cfg", b"manage_etc_hosts: true\n")


def dockered(content: bytes | None, box: Box) -> None:
    box.with_docker()
    file(DAEMON, content, box, 0o600)


def proxied(box: Box) -> None:
    box.with_docker()
    box.write("/lib/systemd/system/docker.service", b"[Service]\nExecStart=/usr/sbin/dockerd\n")
    box.write("/usr/sbin/dockerd", b"#!/bin/sh\necho Docker version 28.5.2\n", 0o755)
    box.write(
        "/etc/systemd/system/docker.service.d/p.conf",
        b'[Service]\nEnvironment="HTTPS_PROXY=http://p:1" "NO_PROXY=a, .b"\n',
    )


def contained(content: bytes | None, box: Box) -> None:
    box.with_containerd(content)


def second(content: str, box: Box) -> None:
    """containerd 2, whose further folders, or tables of mirrors, are said in one folder."""
    box.with_containerd(content.replace("version = 2", "version = 3").replace(V2, V3).encode())
    program = box.root / "usr/bin/containerd"
    program.write_text(program.read_text().replace("1.7.24", "2.1.9"))
    box.write("/b/docker.example/ca.crt", b"x")


HOSTS, DAEMON = "/etc/hosts", "/etc/docker/daemon.json"
CONFIG = "/etc/containerd/config.toml"
ONLY: dict[str, Any] = {"parts": ["hosts"]}
K3S_PART: dict[str, Any] = {"parts": ["k3s"]}
BUILDKIT: dict[str, Any] = {"parts": ["buildkit"]}
HTTP: dict[str, Any] = {"registry": {"insecure": "http", "ca": None, "port": 80}}
QUAY: dict[str, Any] = {"mirrors": [{"of": "quay.io"}], "registry": {"names": ["c.registry.io"]}}
SAME: dict[str, Any] = {"registry": {"port": 5000}}
BOTH = b"127.0.0.1 localhost\n10.9.9.9 my.registry.io two.registry.io box\n"
K3S_FILE = b"# theirs\nmirrors:\n  docker.io:\n    endpoint:\n      - https://cache.lan"
BUILDKIT_FILE = b'# theirs\ndebug = true\n\n[registry."docker.io"]\nmirrors = ["cache.lan"]'
TABLE = 'plugins."io.containerd.grpc.v1.cri".registry'
CLASSIC = f'version = 2\n[{TABLE}.mirrors."a.io"]\n  endpoint = ["https://b.io"]\n'.encode()
CASES = {
    "hosts": Case(partial(file, HOSTS, b"127.0.0.1\tlocalhost\n"), (HOSTS,), ONLY),
    "hosts-unended": Case(partial(file, HOSTS, b"127.0.0.1\tlocalhost"), (HOSTS,), ONLY),
    "no-hosts": Case(partial(file, HOSTS, None), (HOSTS,), ONLY),
    "hosts-template": Case(templated, (HOSTS,), ONLY),
    "hosts-replaced": Case(
        partial(file, HOSTS, BOTH), (HOSTS,), {**ONLY, "options": {"replace": True}}
    ),
    "one-host": Case(
        partial(file, HOSTS, b"127.0.0.1 localhost\n"), (HOSTS,), ONLY,
        {"registry": {"names": ["cache.registry.io"]}}, SAME,
    ),
    "one-host-replaced": Case(
        partial(file, HOSTS, BOTH), (HOSTS,), {**ONLY, "options": {"replace": True}},
        {"registry": {"names": ["cache.registry.io"]}}, SAME,
    ),
    "k3s": Case(partial(runtime, "k3s", K3S, None), (K3S,), K3S_PART, QUAY),
    "k3s-kept": Case(
        partial(runtime, "k3s", K3S, K3S_FILE, mode=0o600), (K3S,), K3S_PART, QUAY
    ),
    "buildkit": Case(partial(runtime, "buildkit", BUILDKITD, None), (BUILDKITD,), BUILDKIT, QUAY),
    "buildkit-kept": Case(
        partial(runtime, "buildkit", BUILDKITD, BUILDKIT_FILE), (BUILDKITD,), BUILDKIT, QUAY
    ),
    "docker": Case(
        partial(dockered, None), (DAEMON,), {"parts": ["docker"], **HTTP},
        {"mirrors": [{"of": "docker.io"}], **HTTP},
        {"registry": {**HTTP["registry"], "host": "two.registry.io"}}, member,
    ),
    "docker-kept": Case(
        partial(dockered, b'{\n  "log-driver": "local",\n  "insecure-registries": ["x:1"]\n}'),
        (DAEMON,), {"parts": ["docker"], **HTTP}, {"mirrors": [{"of": "docker.io"}], **HTTP},
        {"registry": {**HTTP["registry"], "host": "two.registry.io"}}, member,
    ),
    "proxied": Case(
        proxied, (), {"parts": ["docker"], "options": {"fix_proxy": True}},
        {"registry": {"names": ["cache.corp.lan"]}},
        {"registry": {"host": "two.corp.lan"}}, units=("docker.service",),
    ),
    "proxied-one-host": Case(
        proxied, (), {"parts": ["docker"], "options": {"fix_proxy": True}},
        {"registry": {"names": ["cache.corp.lan"]}}, SAME, units=("docker.service",),
    ),
    "containerd": Case(
        partial(contained, b"version = 2\n"), (CONFIG,), {"parts": ["containerd", "hosts"]}, QUAY
    ),
    "containerd-none": Case(
        partial(contained, None), (), {"parts": ["containerd"]}, QUAY
    ),
    "containerd-classic": Case(partial(contained, CLASSIC), (CONFIG,), {"parts": ["containerd"]}),
    "containerd-folders": Case(partial(second, SEVERAL), (CONFIG,), {"parts": ["containerd"]}),
    "containerd-moved": Case(partial(second, LEGACY), (CONFIG,), {"parts": ["containerd"]}),
    "k0s": Case(partial(lay_out, name="k0s"), (), {"parts": ["k0s"]}, QUAY),
    "crio": Case(
        partial(lay_out, name="crio"), (), {"parts": ["crio"], **HTTP},
        {**HTTP, "mirrors": [{"of": "quay.io"}]},
        {"registry": {**HTTP["registry"], "host": "two.registry.io"}},
    ),
}  # fmt: skip


def length(name: str) -> int:
    """How long the sequences of a case are: one less for containerd, whose files take longest."""
    return LENGTH - name.startswith("containerd")


class Life(NamedTuple):
    """What an operator knows: the plans that stand for each registry, oldest first."""

    node: Node
    one: tuple[Plan, ...] = ()
    two: tuple[Plan, ...] = ()
    hands: int = 0
    spoilt: bool = False

    def plans(self, name: str) -> tuple[Plan, ...]:
        return self.one if name == ONE else self.two

    def with_plans(self, name: str, plans: tuple[Plan, ...], node: Node) -> Life:
        moved = self._replace(node=node)
        return moved._replace(one=plans) if name == ONE else moved._replace(two=plans)


class Judge:
    """Walks the sequences of one case; ``broken`` has what was found, the shortest first."""

    def __init__(self, box: Box, case: Case) -> None:
        case.lay(box)
        self.plans = {
            "one": self._plan(box, case.plan, {}),
            "two": self._plan(box, case.plan, case.two),
            "one anew": self._plan(box, case.plan, case.anew),
        }
        self.names = {name: self.plans[name].registry.name for name in OTHER}
        facts = gather(Host(str(box.root)))
        self.shape = Shape(facts, case.shared, case.edit, case.units)
        self.begin = Node(Disk.of(box.root))
        self.json = case.edit is member
        self.broken: dict[str, tuple[str, ...]] = {}
        self.walked = 0
        self.of_before = False
        self._seen: set[object] = set()
        self._steps: dict[object, tuple[Node, Step] | str] = {}
        self._needs: dict[object, frozenset[str]] = {}

    @staticmethod
    def _plan(box: Box, usual: dict[str, Any], more: dict[str, Any]) -> Plan:
        registry = {**usual.get("registry", {}), **more.get("registry", {})}
        return box.plan(**{**usual, **more, "registry": registry, "verify": None})

    def walk(self, length: int, begin: Life | None = None) -> None:
        """All sequences up to a length, breadth first."""
        lives: list[tuple[tuple[str, ...], Life]] = [((), begin or Life(self.begin))]
        for _ in range(length):
            following: list[tuple[tuple[str, ...], Life]] = []
            for path, life in lives:
                for operation in OPERATIONS:
                    if operation in ("hand", "back") and not self.shape.shared:
                        continue
                    self.walked += 1
                    words = (*path, operation)
                    after = self.step(words, life, operation)
                    key = (after.node.looks, after.one, after.two, after.hands, after.spoilt)
                    if key not in self._seen:
                        self._seen.add(key)
                        self.close(words, after)
                        following.append((words, after))
            lives = following

    def step(self, words: tuple[str, ...], life: Life, operation: str) -> Life:
        if operation == "hand":
            node = by_hand(self.shape, life.node, life.hands)
            return life._replace(node=node, hands=life.hands + 1)
        if operation == "back":
            files = {
                path: self.expected(life).disk.read(path).content for path in self.shape.shared
            }
            return life._replace(node=put(life.node, files, life.hands), spoilt=True)
        verb, _, what = operation.partition(" ")
        name = what.partition(" ")[0]
        standing = life.plans(OTHER[name])[-1:]
        found = self.after(life.node, verb, what)
        if isinstance(found, str):
            self.hold(words, verb == "apply" and bool(standing or life.hands), f"refused: {found}")
            return life
        node, step = found
        before = self.told(life.node, OTHER[name], standing)
        # What one registry leaves to another is told as it was told to the first.
        states = life.node.states(self.names[name])
        before |= {f"{path} has changed" for path, one in states.items() if one != "as-left"}
        more = self.told(node, OTHER[name], standing) - before
        self.hold(words, not more, f"the other one: {sorted(more)}")
        lost = self.lost(node, life.hands)
        self.hold(words, not lost, f"a hand's work is lost: {lost}")
        told_apart = step.idle or withdrawal.apart(step.ledgers, node.disk) == step.ledgers
        self.hold(
            words,
            told_apart or self.of_before,
            "what was there before us is taken for another registry's",
        )
        plans = self.plans_after(words, life, node, step, name, what)
        return life.with_plans(name, plans, node)

    def plans_after(
        self, words: tuple[str, ...], life: Life, node: Node, step: Step, name: str, what: str
    ) -> tuple[Plan, ...]:
        """Whether an operation did what it is for, and which plans stand then."""
        plans = life.plans(name)
        if step.operation == "apply":
            lacking = self.lacks(node, self.plans[what])
            self.hold(words, not lacking, f"an apply that is not enough: {sorted(lacking)}")
            return plans if step.idle else (*plans, self.plans[what])
        if step.operation == "undo" and not plans:
            self.hold(words, step.idle, "nothing stands, and something is taken back")
            return plans
        left = [one for one in step.notes if "left alone" in one]
        if not life.spoilt:
            self.hold(words, not step.idle or not plans, "nothing is taken back")
            self.hold(words, not left, str(left))
        if step.operation == "undo" and len(plans) > 1:
            lacking = self.lacks(node, plans[-2])
            self.hold(words, life.spoilt or not lacking, f"not as before: {sorted(lacking)}")
        elif not life.spoilt:
            self.hold(words, self.names[name] not in node.ledgers, "something stays ours")
        if step.operation == "undo":
            return plans if step.idle else plans[:-1]
        return ()

    def after(self, node: Node, verb: str, what: str) -> tuple[Node, Step] | str:
        """The node after an operation, and its step; or why it was refused."""
        key = (node.looks, verb, what)
        if key not in self._steps:
            try:
                step = wanted(self.shape, node, verb, self.plans[what])
                self._steps[key] = done(node, step), step
            except AgentError as problem:
                self._steps[key] = str(problem)
        return self._steps[key]

    def lacks(self, node: Node, plan: Plan) -> frozenset[str]:
        key = (node.looks, id(plan))
        if key not in self._needs:
            self._needs[key] = needs(self.shape, node, plan)
        return self._needs[key]

    def told(self, node: Node, name: str, standing: tuple[Plan, ...]) -> frozenset[str]:
        """What a registry lacks, and which of its files are told as changed."""
        if not standing:
            return frozenset()
        states = node.states(self.names[name])
        told = {f"{path} has changed" for path, state in states.items() if state != "as-left"}
        return frozenset(told) | self.lacks(node, standing[0])

    def lost(self, node: Node, hands: int) -> list[str]:
        """What an operator wrote into the files of several, and is not there any more."""
        found = {path: node.disk.read(path).content or b"" for path in self.shape.shared}
        marks = [f'  "hand-{number}": true' if self.json else f"# by hand {number}"
                 for number in range(hands)]  # fmt: skip
        return [f"{mark} in {path}" for path, content in found.items() for mark in marks
                if mark not in content.decode().replace(",\n", "\n").split("\n")]  # fmt: skip

    def expected(self, life: Life) -> Node:
        """The node as it would be without us."""
        node = self.begin
        for number in range(life.hands):
            node = by_hand(self.shape, node, number)
        return node

    def close(self, words: tuple[str, ...], life: Life) -> None:
        """Everything away, in each of the ways: the node is as it was but for the hands."""
        for way in WAYS if not life.spoilt else WAYS[:2]:
            end = life
            for operation in way:
                name = operation.partition(" ")[2]
                for _ in range(len(life.plans(name)) if operation.startswith("undo") else 1):
                    end = self.step((*words, f"then {operation}"), end, operation)
            told = (*words, *(f"then {one}" for one in way))
            self.hold(told, life.spoilt or not end.node.ledgers, f"still ours: {end.node.ledgers}")
            for difference in self.differences(self.expected(life).disk, end.node.disk):
                self.hold(told, False, difference)

    def differences(self, expected: Disk, found: Disk) -> Iterator[str]:
        for folder in sorted(expected.folders ^ found.folders):
            yield f"the folder {folder} {'stays' if folder in found.folders else 'is gone'}"
        for path in sorted({*expected.files, *found.files}):
            was, now = expected.files.get(path), found.files.get(path)
            if was is None or now is None:
                yield f"{path} {'stays: ' + repr(now) if now else 'is lost'}"
            elif was.content != now.content and not self._same(was.content, now.content):
                yield f"{path}: {was.content!r} became {now.content!r}"
            elif was.mode != now.mode and path in self.begin.disk.files:
                yield f"{path}: mode {was.mode:o} became {now.mode:o}"

    def _same(self, was: bytes, now: bytes) -> bool:
        """A JSON text that was edited by hand in between is compared by what it says."""
        return self.json and b"hand" in was and json.loads(was) == json.loads(now)

    def hold(self, words: tuple[str, ...], holds: bool, otherwise: str) -> None:
        if not holds:
            self.broken.setdefault(otherwise, words)

    def must_hold(self) -> None:
        found = [f"{', '.join(words)}: {what}" for what, words in self.broken.items()]
        assert not found, "\n".join([f"{len(found)} broken of {self.walked} walked", *found[:12]])


@pytest.mark.parametrize("name", CASES)
def test_in_whichever_order_each_is_as_if_alone(box: Box, name: str) -> None:
    judge = Judge(box, CASES[name])
    judge.walk(length(name))
    judge.must_hold()


# Found by longer walks.
LONGER = (
    ("apply one", "back", "apply one", "apply two", "undo one", "untrust one", "untrust two"),
    ("apply two", "apply one", "back", "apply one", "undo one", "untrust one", "untrust two"),
    ("apply two", "hand", "apply one anew", "apply two", "undo one", "undo two"),
    ("apply one", "apply two", "apply one anew", "untrust two", "apply two", "undo one", "hand"),
)


@pytest.mark.parametrize("name", CASES)
def test_what_longer_walks_have_found_holds(box: Box, name: str) -> None:
    judge = Judge(box, CASES[name])
    for words in LONGER:
        life = Life(judge.begin)
        for number, operation in enumerate(words, 1):
            life = judge.step(words[:number], life, operation)
        judge.close(words, life)
    judge.must_hold()


# After a third apply, such an agent has forgotten that there was no file before.
APPLIED = (("apply one", "apply two"), ("apply two", "apply one anew"))
# What an agent of before made of these nodes had no room for two.
UNTOLD = ("one-host", "one-host-replaced", "proxied", "proxied-one-host")


@pytest.mark.parametrize("name", [name for name in CASES if name not in UNTOLD])
def test_what_an_agent_of_before_noted_is_told_apart(box: Box, name: str) -> None:
    judge = Judge(box, CASES[name])
    registries = {plan.registry.name: plan.registry for plan in judge.plans.values()}
    for words in APPLIED:
        life = Life(judge.begin)
        for operation in words:
            life = judge.step(words, life, operation)
        judge.of_before = True
        judge.walk(LENGTH - 2, life._replace(node=of_before(life.node, registries)))
    judge.must_hold()
