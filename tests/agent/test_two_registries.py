"""Two registries on one node: each is trusted, told, taken back as if it were alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from agent.engine.carrying import carry_out
from agent.journal.desired import plans
from agent.journal.ledger import Store
from agent.wire.verbs import named
from tests.agent.conftest import Box
from tests.agent.test_runtimes import BUILDKITD, CASES, K3S, lay_out

ONE: dict[str, Any] = {"registry": {"address": "10.0.0.1"}}
TWO: dict[str, Any] = {
    "registry": {"host": "two.registry.io", "port": 5000, "address": "10.0.0.2"},
    "verify": None,
}
PLANS = {"one": ONE, "two": TWO}
PLANS_HOST = {"one": "my.registry.io", "two": "two.registry.io"}
OTHER = {"one": "two", "two": "one"}


def status(node: Box) -> dict[str, dict[str, str]]:
    """Registry -> path -> whether it is as it was left."""
    events = node.run(node.engine().status())["events"]
    told = next(event for event in events if event["event"] == "status")
    return {
        one["registry"]: {file["path"]: file["state"] for file in one["files"]}
        for one in told["trusted"]
    }


def read(box: Box) -> dict[str, bytes]:
    """The files as a runtime reads them: who began a section that both need is a comment there."""
    begun = re.compile(rb"(?m)^(mirrors|configs): # moorage .*$")
    return {path: begun.sub(rb"\1:", content) for path, content in box.files().items()}


def debian(box: Box) -> Box:
    return box.with_containerd().with_docker()


def bare(box: Box) -> Box:
    return box.with_containerd(None).with_docker()


def mirrored(box: Box) -> Box:
    """containerd with the table of mirrors that it reads in the place of folders."""
    config = b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."a.io"]\n'
    return box.with_containerd(config + b'  endpoint = ["https://b.io"]\n')


def stored(box: Box) -> Box:
    """One whose every program can be made to trust a CA."""
    (box.root / "usr/local/share/ca-certificates").mkdir(parents=True)
    return debian(box)


def kept(box: Box, name: str, path: str, content: bytes) -> Box:
    """One with a file of somebody else's that both have to write into."""
    lay_out(box, name).write(path, content)
    return box


K3S_FILE = b"# theirs\nmirrors:\n  quay.io:\n    endpoint:\n      - https://cache.lan\n"
BUILDKIT_FILE = b'# theirs\ndebug = true\n\n[registry."quay.io"]\nmirrors = ["cache.lan"]\n'
NODES: dict[str, tuple[Callable[[Box], Box], dict[str, Any]]] = {
    "debian": (debian, {}),
    "bare": (bare, {}),
    "mirrored": (mirrored, {}),
    "http": (debian, {"insecure": "http", "ca": None}),
    "store": (stored, {"parts": ["containerd", "hosts", "system"]}),
    "k3s-kept": (partial(kept, name="k3s", path=K3S, content=K3S_FILE), {"parts": ["k3s"]}),
    "buildkit-kept": (
        partial(kept, name="buildkit", path=BUILDKITD, content=BUILDKIT_FILE),
        {"parts": ["buildkit"]},
    ),
    **{name: (partial(lay_out, name=name), {"parts": [CASES[name][0], "hosts"]}) for name in CASES},
}


@dataclass
class Two:
    """A node, and the plans of its two registries."""

    node: Box
    more: dict[str, Any]

    def plan(self, name: str) -> dict[str, Any]:
        more = dict(self.more)
        registry = dict(PLANS[name]["registry"])
        if more.pop("insecure", ""):
            registry |= {"insecure": "http", "ca": more.pop("ca")}
            registry.setdefault("port", 5001)
        return {**PLANS[name], **more, "registry": registry, "verify": None}

    def apply(self, name: str) -> str:
        result = self.node.apply(**self.plan(name))
        assert result["error"] is None, result["error"]
        return str(result["status"])

    def untrust(self, name: str) -> str:
        return str(self.node.untrust(**self.plan(name))["status"])

    def undo(self, name: str) -> dict[str, Any]:
        return self.node.run(self.node.engine().undo(self.node.plan(**self.plan(name))))

    def in_order(self, *names: str) -> None:
        """These and no others are trusted, and each of their files is as it was left."""
        found = status(self.node)
        assert len(found) == len(names)
        for registry, files in found.items():
            assert registry.partition(":")[0] in {PLANS_HOST[name] for name in names}
            assert set(files.values()) == {"as-left"}, (registry, files)


@pytest.mark.parametrize("first", ["one", "two"])
@pytest.mark.parametrize("gone", ["one", "two"])
@pytest.mark.parametrize("laid_out", NODES)
def test_one_goes_and_the_other_stands_as_if_it_were_alone(
    box: Box, laid_out: str, first: str, gone: str
) -> None:
    lay, more = NODES[laid_out]
    two = Two(lay(box), more)
    files, folders = box.files(), box.folders()
    stays, second = OTHER[gone], OTHER[first]
    two.apply(stays)
    alone = read(box)
    two.untrust(stays)
    assert two.apply(first) == two.apply(second) == "changed"
    two.in_order("one", "two")
    assert two.apply("one") == two.apply("two") == "unchanged"
    assert two.untrust(gone) == "changed"
    two.in_order(stays)
    assert read(box) == alone
    assert two.apply(stays) == "unchanged"
    two.untrust(stays)
    assert (box.files(), box.folders()) == (files, folders)


@pytest.mark.parametrize("gone", ["one", "two"])
@pytest.mark.parametrize("laid_out", NODES)
def test_an_undo_takes_back_what_was_done_for_its_registry(
    box: Box, laid_out: str, gone: str
) -> None:
    lay, more = NODES[laid_out]
    two = Two(lay(box), more)
    files, folders = box.files(), box.folders()
    stays = OTHER[gone]
    two.apply(stays)
    alone = read(box)
    two.untrust(stays)
    two.apply("one")
    two.apply("two")
    assert two.undo(gone)["status"] == "changed"
    two.in_order(stays)
    assert read(box) == alone
    again = two.undo(gone)
    assert again["status"] == "unchanged"
    name = next(iter(status(box)))
    notes = [event["message"] for event in again["events"] if event["event"] == "note"]
    assert any("nothing to take back" in one and name in one for one in notes), notes
    assert two.undo(stays)["status"] == "changed"
    assert (box.files(), box.folders()) == (files, folders)


def test_an_undo_to_an_earlier_apply_leaves_what_came_in_between(box: Box) -> None:
    two = Two(debian(box), {})
    two.apply("one")
    two.apply("two")
    between = box.files()
    moved = {**two.plan("one"), "registry": {"address": "10.0.0.9"}}
    assert box.apply(**moved)["status"] == "changed"
    two.in_order("one", "two")
    assert two.undo("one")["status"] == "changed"
    two.in_order("one", "two")
    assert box.files() == between
    two.untrust("two")
    two.in_order("one")


def test_a_second_mirror_of_one_registry_is_refused_and_the_first_stays(box: Box) -> None:
    two = Two(debian(box), {"mirrors": [{"of": "docker.io"}]})
    two.apply("one")
    files = box.files()
    result = box.apply(**two.plan("two"))
    assert (result["code"], result["changes"]) == ("mirror-foreign", [])
    assert box.files() == files
    two.in_order("one")


def test_history_verify_and_plans_are_told_per_registry(box: Box) -> None:
    two = Two(debian(box), {})
    store = Store(str(box.root))
    for name in PLANS:
        plan = box.plan(**two.plan(name))
        box.run(carry_out(box.engine(), store, named("apply"), plan))
    told = box.run(box.engine().history())["events"]
    records = next(event for event in told if event["event"] == "history")["records"]
    assert [one["registry"] for one in records] == ["two.registry.io:5000", "my.registry.io"]
    assert [one.registry.name for one in plans(store)] == [
        "my.registry.io",
        "two.registry.io:5000",
    ]
    one = box.plan(**two.plan("one"))
    box.run(carry_out(box.engine(), store, named("untrust"), one))
    assert [plan.registry.name for plan in plans(store)] == ["two.registry.io:5000"]
    assert box.run(box.engine().verify(box.plan(**two.plan("two"))))["error"] is None


def test_a_line_that_somebody_else_changed_is_told_to_its_registry_alone(box: Box) -> None:
    two = Two(debian(box), {})
    two.apply("one")
    two.apply("two")
    path = "/etc/containerd/certs.d/two.registry.io:5000/hosts.toml"
    box.write(path, (box.read(path) or b"") + b"# theirs\n")
    found = status(box)
    assert found["two.registry.io:5000"][path] == "changed"
    assert set(found["my.registry.io"].values()) == {"as-left"}
    # What others wrote into a shared file before is no work of ours, and stays told.
    box.write("/etc/hosts", (box.read("/etc/hosts") or b"") + b"10.9.9.9 theirs\n")
    two.apply("two")
    assert status(box)["my.registry.io"]["/etc/hosts"] == "changed"
