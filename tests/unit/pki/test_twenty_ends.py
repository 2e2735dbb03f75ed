"""Twenty ends, each put in by itself: told wherever it can be seen, and nothing else beside it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.wire.faults import Fault
from agent.wire.report import UNCHANGED, HostResult
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.ssh import routing
from moorage.fleet.state import table
from moorage.fleet.state.host import Ours, Standing
from moorage.pki import certificates
from moorage.pki import registry as pki
from moorage.pki.ends import SOON
from moorage.pki.roster import Roster
from moorage.registry import served
from moorage.registry.front.roles import User
from moorage.registry.logins import users
from moorage.registry.logins.credentials import ensure
from moorage.settings import NodesSettings, Settings
from moorage.tasks.command import Run
from moorage.tasks.registry import registry as tasks
from moorage.ui import UI
from moorage.upkeep import outcomes, textfile
from moorage.walk import doctor
from tests.adopted import Folder, adopted_by_address
from tests.unit.elsewhere import project
from tests.unit.fleet.state import test_standing as nodes
from tests.unit.pki.test_ends import make_short, serving

QUIET = UI(as_json=True)
FLEET = {"ca": "fleet CA", "operator": "operator's certificate", "viewer": "viewer's certificate"}


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def made(days: int, begun: int = 0) -> bytes:
    """A certificate that has so many days left, and begins in so many."""
    key = certificates.new_key("ec-p256")
    began = now() + datetime.timedelta(days=begun)
    # A certificate with no day left is one of a month that was made a month ago, and a little more.
    length = max(days, 1)
    began -= datetime.timedelta(days=length - days)
    found = certificates.make_ca(key, common_name="another", days=length, now=began)
    return certificates.certificate_pem(found)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A machine on which everything has years left, and whose registry answers."""
    found = project(tmp_path)
    pki.issue(found)
    ensure(found)
    (found.certs_dir / "fleet").mkdir()
    for name in FLEET:
        (found.certs_dir / "fleet" / f"{name}.crt").write_bytes(made(300))
    (tmp_path / "served").mkdir()
    for name in ("registry.crt", "registry.key"):
        (tmp_path / "served" / name).write_bytes((found.certs_dir / name).read_bytes())
    with ExitStack() as stack:
        yield stack.enter_context(serving(found, tmp_path / "served"))


def put(name: str, content: bytes) -> Callable[[Settings], None]:
    def inject(settings: Settings) -> None:
        (settings.certs_dir / name).write_bytes(content)

    return inject


def short_leaf(settings: Settings) -> None:
    make_short(settings, 20)


def second_ca(settings: Settings) -> None:
    path = settings.certs_dir / "ca.crt"
    path.write_bytes(path.read_bytes() + made(5))


HERE: dict[str, tuple[str, Callable[[Settings], None]]] = {
    "the CA soon": ("CA", put("ca.crt", made(20))),
    "the CA ended": ("CA", put("ca.crt", made(-1))),
    "the CA of the future": ("CA", put("ca.crt", made(300, begun=2))),
    "the CA spoilt": ("CA", put("ca.crt", b"spoilt")),
    "one CA of two": ("CA", second_ca),
    "the leaf soon": (served.LEAF, short_leaf),
    "the leaf ended": (served.LEAF, put("registry.crt", made(-1))),
    "the leaf spoilt": (served.LEAF, put("registry.crt", b"spoilt")),
    "the fleet's CA": (FLEET["ca"], put("fleet/ca.crt", made(10))),
    "the operator's": (FLEET["operator"], put("fleet/operator.crt", made(10))),
    "the viewer's": (FLEET["viewer"], put("fleet/viewer.crt", made(-1))),
}


def test_where_nothing_ends_nothing_is_told(settings: Settings) -> None:
    assert _told_here(settings) == ([], [], [], [])


@pytest.mark.parametrize("case", HERE)
def test_an_end_on_this_machine_is_told(settings: Settings, case: str) -> None:
    what, inject = HERE[case]
    inject(settings)
    assert _told_here(settings) == ([what], [what], [what], [what])


@pytest.mark.parametrize("registry", ["short", "silent"])
def test_what_is_served_is_told_by_itself(settings: Settings, registry: str) -> None:
    other = project(settings.root / "other")
    pki.issue(other)
    make_short(other, 3)
    with serving(settings, other.certs_dir) as short:
        there = short
        if registry == "short":
            assert _told_here(there) == ([served.SERVED],) * 4
    if registry == "silent":  # doctor tells of it as of a registry that is down
        assert _told_here(there)[1:] == ([served.SERVED],) * 3


def _told_here(settings: Settings) -> tuple[list[str], list[str], list[str], list[str]]:
    """What `doctor`, `certs.show`, `registry.status` and the metrics tell, each by its kind."""
    at = now()
    ends = served.all_ends(settings)
    of_doctor = [one for one in doctor._certificate_ends(settings) if one.state == "wrong"]
    shown = tasks._ends(Run(settings, QUIET))["ends"]
    text = textfile.text(outcomes.Notes(), "r", settings.registry_data, ends)
    samples = [line for line in text.splitlines() if line.startswith("moorage_kept_certificate")]
    return (
        [next(w for w in sorted(served.RENEWED_BY, key=len, reverse=True) if f"the {w} " in f.found)
         for f in of_doctor],
        [one.what for one in ends if one.state(at) != "fine"],
        [one["what"] for one in shown if one["state"] != "fine"],
        list(dict.fromkeys(_kind(line) for line in samples if _alarms(line))),
    )  # fmt: skip


def _kind(line: str) -> str:
    return line.partition('certificate="')[2].partition('"')[0]


def _alarms(line: str) -> bool:
    value = float(line.rpartition(" ")[2])
    return value == 0 if "_valid{" in line else value < time.time() + SOON.total_seconds()


AT = time.time()
NODES: dict[str, tuple[dict[str, Any], str]] = {
    "a node's copy of the CA soon": ({"ca_ends": 20}, "CA ends in 19 days"),
    "a node's copy of the CA ended": ({"ca_ends": -1}, "CA ended on"),
    "an agent's certificate soon": ({"agent": 20}, "agent's certificate ends in 19 days"),
    "an agent's certificate ended": ({"agent": -1}, "agent's certificate ended on"),
    "a clock that is ahead": ({"clock": 7200}, "its clock is 120 min ahead"),
    "a clock that is behind": ({"clock": -7200}, "its clock is 120 min behind"),
    "a node that is silent": ({"silent": True}, "end is not known: no answer"),
}


def node(**wrong: int) -> Standing:
    state = nodes.state(clock_ahead=wrong.get("clock", 0))
    state["trusted"][0]["ca_ends"] = int(AT) + wrong.get("ca_ends", 3000) * 86400
    state["resident"]["certificate_ends"] = int(AT) + wrong.get("agent", 80) * 86400
    fault = Fault("timeout", "no answer", "it is down", "ping it") if "silent" in wrong else None
    return Standing.of(HostResult("n", UNCHANGED, error=fault), "", state)


@pytest.mark.parametrize("case", NODES)
def test_an_end_on_a_node_is_told(case: str) -> None:
    wrong, words = NODES[case]
    own, found = Ours("0.2.0", "a" * 64), node(**wrong)
    (told,) = doctor.ends_of_node(found, now())
    assert (told.state, words in told.found, bool(told.cure)) == ("wrong", True, True)
    if found.fault is None:
        assert len(found.to_do(own, AT)) == 1
    else:
        assert "1 not asked" in table.summary([found], own, AT)
    assert doctor.ends_of_node(node(), now()) == []
    assert node().to_do(own, AT) == ()


@pytest.mark.parametrize(
    ("left", "words"), [(3 * 86400, "guest ends on"), (-60, "guest ended on"), (60 * 86400, "")]
)
def test_an_end_of_a_login_is_told(settings: Settings, left: int, words: str) -> None:
    assert doctor._logins(settings) == []
    end = int(time.time()) + left
    users.add(settings, User("guest", "push", ("a/**", "b"), end))
    users.add(settings, User("later", "pull", expires=int(time.time()) + 90 * 86400))
    users.add(settings, User("ever", "pull"))
    (found,) = doctor._logins(settings)
    assert found.state == ("wrong" if words else "fine")
    assert words in found.found
    if words:
        assert "inv users.add guest --role=push --repositories='a/**,b' --expires=90d" in found.cure


def test_twenty_are_put_in() -> None:
    assert len(HERE) + len(["short", "silent"]) + len(NODES) == 20


def test_doctor_asks_each_node_for_its_ends(tmp_path: Path) -> None:
    with adopted_by_address(tmp_path) as folder:
        folder.apply()
        found = _of_node(folder)
        assert [one for one in found if "the CA ends in 29 days" in one.found], found
        folder.agent.stop()
        assert [one for one in _of_node(folder) if "its end is not known" in one.found]


def _of_node(folder: Folder) -> list[doctor.Finding]:
    settings = replace(folder.settings, nodes=NodesSettings(retries=0))
    ((host, one),) = Roster(settings).residents().items()
    return doctor._node_ends(Fleet(settings, QUIET), (routing.of_agent(host, one),))
