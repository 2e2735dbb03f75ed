"""One agent stays on a node that two profiles of a checkout trust: it obeys the first alone.

A stand-in for the SSH session: it tells what an agent on the node would ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.wire.report import CHANGED, FAILED, HostResult
from moorage.errors import Refused
from moorage.fleet.inventory import Target
from moorage.fleet.residents import residence
from moorage.fleet.residents.invitation import Invitation
from moorage.fleet.ssh.routes import Route
from moorage.pki import neighbours
from moorage.pki.roster import Resident, Roster
from moorage.settings import Settings

IDENTITY, OURS = "a" * 32, "b" * 32


@pytest.fixture
def profile(tmp_path: Path) -> Callable[[str], Settings]:
    class There(Settings):
        @property
        def root(self) -> Path:
            return tmp_path

    for name in ("eu", "us"):
        (tmp_path / f"invoke.{name}.yaml").write_text("")
    return lambda name: There(profile=name)


class Visit:
    """On a node where the agent with this id stays."""

    def __init__(self, identity: str) -> None:
        self.route = Route(Target("node1", "node1"), "node1", 22, "root")
        self.identity = identity
        self.done: list[str] = []
        self.told: list[dict[str, Any]] = []

    def tell(self, event: dict[str, Any]) -> None:
        self.told.append(event)

    def errand(self, words: tuple[str, ...], reply: Any = None) -> HostResult:
        if words == ("reside",):
            answer = reply({"event": "request", "id": self.identity, "request": "", "time": 0})
            assert answer == b"\n", "the node got a certificate"
            return HostResult("node1", FAILED)
        self.done.append(words[0])
        return HostResult("node1", CHANGED)


def adopted(settings: Settings, identity: str = IDENTITY) -> None:
    Roster(settings).put("node1", Resident(identity, 7443, "1", 2_000_000_000))


@pytest.mark.parametrize(("first", "second"), [("eu", "us"), ("", "us"), ("eu", "")])
def test_a_second_profile_neither_takes_the_agent_over_nor_away(
    profile: Callable[[str], Settings], first: str, second: str
) -> None:
    adopted(profile(first))
    ours = profile(second)
    for verb in (partial(residence.adopt, port=None, loopback=False), residence.release):
        visit: Any = Visit(IDENTITY)
        with pytest.raises(Refused) as caught:
            verb(ours, visit)
        assert caught.value.code == "another-profiles"
        assert f"by the profile {first or 'default'}" in caught.value.message
        assert f"inv --profile={first or 'default'} nodes.release --hosts=node1" in (
            caught.value.cure
        )
        assert visit.done == []
    assert Roster(profile(first)).residents()["node1"].id == IDENTITY
    assert Roster(profile(second)).residents() == {}


def test_an_agent_of_nobody_here_is_released_as_before(profile: Callable[[str], Settings]) -> None:
    adopted(profile("eu"))
    visit: Any = Visit(OURS)
    assert residence.release(profile("us"), visit).ok
    assert visit.done == ["release"]


def test_its_own_profile_releases_it_without_a_question(
    profile: Callable[[str], Settings],
) -> None:
    adopted(profile("eu"))
    adopted(profile("us"), OURS)
    visit: Any = Visit(OURS)
    assert residence.release(profile("us"), visit).ok
    assert (visit.done, Roster(profile("us")).residents()) == (["release"], {})


def test_after_a_trust_the_agent_of_the_other_profile_is_left_alone(
    profile: Callable[[str], Settings],
) -> None:
    adopted(profile("eu"))
    told: list[dict[str, Any]] = []
    ours, visit = profile("us"), Visit(IDENTITY)
    invitation: Any = Invitation(
        None, Roster(ours), visit.route, None, 7443, told.append,  # type: ignore[arg-type]
        lambda identity: neighbours.holder(ours, identity),
    )  # fmt: skip
    assert invitation.reply({"event": "request", "id": IDENTITY}) == b"\n"
    assert "the agent of the profile eu stays on this node" in told[0]["message"]


def test_another_folder_of_certificates_is_found_by_the_profiles_own_file(
    profile: Callable[[str], Settings], tmp_path: Path
) -> None:
    (tmp_path / "invoke.eu.yaml").write_text("certs: {dir: keys}\n")
    (tmp_path / "profiles/eu").mkdir(parents=True)
    there = tmp_path / "profiles/eu/keys"
    adopted(profile("eu"))
    (tmp_path / "profiles/eu/certs").rename(there)
    assert neighbours.holder(profile("us"), IDENTITY) == "eu"
    (there / "fleet/nodes.json").write_text("{")
    assert neighbours.holder(profile("us"), IDENTITY) == ""
