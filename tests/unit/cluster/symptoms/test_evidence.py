"""Whether a node trusts the registry, from what happened there and when.

The API is a stand-in here: lists by path. The logbook is the real one, in a folder of the test's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.wire.report import CHANGED, ROLLED_BACK, UNCHANGED, HostResult
from moorage.cluster.api.refusals import ApiError
from moorage.cluster.diagnosis import nodes
from moorage.cluster.diagnosis.nodes import AGENTS_UNTRUST, TrustProof
from moorage.cluster.symptoms import evidence
from moorage.cluster.symptoms.evidence import Evidence, judged
from moorage.fleet.inventory import Target
from moorage.fleet.report import deeds, logbook
from moorage.settings import Settings

SETTINGS = Settings()
REGISTRY = SETTINGS.registry_name
IMAGE = SETTINGS.image_reference
# An instant; the tests count minutes from it.
NOON = datetime(2026, 11, 28, 12, 0, tzinfo=UTC).timestamp()


def at(minutes: float) -> str:
    return evidence.shown(NOON + 60 * minutes)


def event(minutes: float, message: str, *, clock: float = 0, again: float | None = None) -> Any:
    """A kubelet's, sent at once; its clock goes ``clock`` minutes before the server's."""
    last = minutes if again is None else again
    return {
        "metadata": {"creationTimestamp": at(minutes)},
        "involvedObject": {"namespace": "web", "name": "a"},
        "source": {"component": "kubelet", "host": "n1"},
        "reason": "Pulled" if message.startswith("Successfully") else "Failed",
        "type": "Normal" if message.startswith("Successfully") else "Warning",
        "message": message,
        "firstTimestamp": at(minutes + clock),
        "lastTimestamp": at(last + clock),
    }


PULLED = f'Successfully pulled image "{IMAGE}" in 1.2s'
X509 = f'Failed to pull image "{IMAGE}": x509: certificate signed by unknown authority'
NO_HOST = f'Failed to pull image "{IMAGE}": dial tcp: lookup {REGISTRY}: no such host'
REFUSED = f'Failed to pull image "{IMAGE}": 401 Unauthorized'


class Api:
    """A stand-in: what it lists; ``ahead``: how far its clock is before ours, in seconds."""

    def __init__(self, *events: Any, **more: Any) -> None:
        self.ahead = more.pop("ahead", 0.0)
        self.where = SimpleNamespace(context="a")
        self._forbidden = more.pop("forbidden", False)
        self._events, self._pods = events, more.pop("pods", ())
        self._node = {
            "metadata": {"name": "n1", "creationTimestamp": at(-600), **more},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]},
        }

    def items(self, path: str, what: str = "", **_: Any) -> Iterator[Any]:
        del what
        if path.endswith("events") and self._forbidden:
            raise ApiError("forbidden", "no", status=403)
        kinds = {"nodes": [self._node], "events": self._events, "pods": self._pods}
        return iter(kinds[path.rpartition("/")[2]])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(logbook, "folder", lambda _: tmp_path / "rollouts")
    return tmp_path / "rollouts"


def proof(api: Api) -> TrustProof:
    (found,) = nodes.prove(api, SETTINGS)  # type: ignore[arg-type]
    return found


def done(
    folder: Path, verb: str, minutes: float, host: str = "n1", status: str = CHANGED, **more: Any
) -> None:
    """A run of ours, noted when it was."""
    result = HostResult(host, status, **more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: NOON + 60 * minutes)
        patch.setattr(time, "time_ns", lambda: int((NOON + 60 * minutes) * 10**9))
        logbook.note(folder, f"{verb} {REGISTRY}", [Target(host, host)], [result])


def test_a_pull_proves_the_trust_until_something_newer_is_known(folder: Path) -> None:
    assert (proof(Api()).trusts, proof(Api()).by) == (None, "nothing")
    pulled = proof(Api(event(0, PULLED)))
    assert (pulled.trusts, pulled.by) == (True, "pulled")
    assert at(0) in pulled.words
    done(folder, "untrust", -5)
    assert proof(Api(event(0, PULLED))).trusts is True
    done(folder, "untrust", 5)
    gone = proof(Api(event(0, PULLED)))
    assert (gone.trusts, gone.by) == (False, "untrusted")
    assert "inv nodes.untrust" in gone.words
    assert proof(Api(event(0, PULLED), event(10, PULLED))).trusts is True


@pytest.mark.parametrize("message", [X509, NO_HOST])
def test_the_newer_of_two_pulls_counts(message: str) -> None:
    """Whether or not its pod is still there."""
    failing = proof(Api(event(0, PULLED), event(5, message)))
    assert (failing.trusts, failing.by) == (False, "failed")
    assert proof(Api(event(5, PULLED), event(0, message))).trusts is True
    # One event is told again and again.
    assert proof(Api(event(5, PULLED), event(0, message, again=9))).trusts is False


def test_a_pull_that_fails_for_something_else_says_nothing_of_the_trust() -> None:
    assert proof(Api(event(0, PULLED), event(5, REFUSED))).trusts is True
    other = X509.replace(f'"{REGISTRY}/', f'"{REGISTRY}.example/')
    assert proof(Api(event(0, PULLED), event(5, other))).trusts is True


def test_agents_that_took_the_trust_away_outweigh_an_older_pull(folder: Path) -> None:
    done(folder, AGENTS_UNTRUST, 5)
    gone = proof(Api(event(0, PULLED)))
    assert gone.trusts is False
    assert "inv k8s.agents --remove --untrust" in gone.words


def test_the_word_of_an_agent_has_its_time_too(folder: Path) -> None:
    said = {"annotations": {"moorage.dev/trusted": json.dumps({REGISTRY: at(3)})}}
    assert proof(Api(**said)).by == "agent"
    assert proof(Api(event(0, X509), **said)).trusts is True
    assert proof(Api(event(5, X509), **said)).trusts is False
    done(folder, "untrust", 6)
    assert proof(Api(**said)).by == "untrusted"


def test_an_undo_leaves_the_trust_unknown_until_the_next_pull(folder: Path) -> None:
    done(folder, "undo", 5)
    after = proof(Api(event(0, PULLED)))
    assert (after.trusts, after.by) == (None, "undone")
    assert proof(Api(event(0, PULLED), event(6, PULLED))).trusts is True


def test_a_trust_without_a_pull_ends_what_was_against_it_and_proves_nothing(folder: Path) -> None:
    done(folder, "trust", 9, status=UNCHANGED)
    assert proof(Api(event(0, PULLED))).trusts is True
    assert proof(Api()).by == "set-up"
    done(folder, "untrust", 5)
    again = proof(Api(event(0, PULLED)))
    assert (again.trusts, again.by) == (None, "set-up")
    done(folder, "trust", 10, verified=True, pull_seconds=0.4)
    assert proof(Api(event(0, PULLED))).trusts is True


def test_what_was_rolled_back_changed_nothing(folder: Path) -> None:
    done(folder, "untrust", 5, status=ROLLED_BACK)
    assert proof(Api(event(0, PULLED))).trusts is True


def test_another_registry_s_and_another_host_s_untrust_says_nothing(folder: Path) -> None:
    done(folder, "untrust", 5, host="n2")
    results = [HostResult("n1", CHANGED)]
    logbook.note(folder, "untrust other.registry.io", [Target("n1", "n1")], results)
    assert proof(Api(event(0, PULLED))).trusts is True
    done(folder, "untrust", 6, host="192.0.2.7")
    assert proof(Api(event(0, PULLED))).trusts is False


def test_a_node_that_was_made_anew_begins_with_nothing(folder: Path) -> None:
    new = {"creationTimestamp": at(4)}
    assert proof(Api(event(0, PULLED), **new)).by == "nothing"
    assert proof(Api(event(0, X509), **new)).by == "nothing"
    done(folder, "untrust", 2)
    assert proof(Api(event(5, PULLED), **new)).trusts is True


@pytest.mark.parametrize("clock", [-90, 90])
def test_clocks_that_differ_change_nothing(folder: Path, clock: float) -> None:
    """The kubelet's by ``clock`` minutes, or ours: the server's counts."""
    done(folder, "untrust", 5)
    assert proof(Api(event(0, PULLED, clock=clock))).trusts is False
    assert proof(Api(event(8, PULLED, clock=clock))).trusts is True
    # What was noted at 5 by our clock was so much later by the server's.
    assert proof(Api(event(8, PULLED), ahead=-60 * clock)).trusts is (clock > 0)


def waiting(image: str = IMAGE) -> dict[str, Any]:
    """A pod that waits for an image of a registry it does not trust."""
    state = {"waiting": {"reason": "ErrImagePull", "message": X509.replace(IMAGE, image)}}
    return {
        "metadata": {"name": "a", "namespace": "web", "uid": "1"},
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": image}]},
        "status": {"containerStatuses": [{"name": "app", "state": state}]},
    }


def test_without_a_right_to_events_what_fails_now_counts() -> None:
    failing = proof(Api(pods=[waiting()], forbidden=True))
    assert (failing.trusts, failing.by) == (False, "failed")


def test_a_logbook_of_before_has_the_time_of_its_end(folder: Path) -> None:
    done(folder, "untrust", 5)
    (file,) = folder.iterdir()
    lines = file.read_text().splitlines()
    old = [json.dumps({k: v for k, v in json.loads(line).items() if k != "at" or "end" in line})
           for line in lines]  # fmt: skip
    file.write_text("\n".join(old) + "\n")
    (deed,) = deeds.deeds(folder, REGISTRY)
    assert deed.at == NOON + 300


def test_the_newest_decides_and_older_ones_are_not_asked() -> None:
    old, new = Evidence(1, True, "pulled", "old"), Evidence(2, False, "failed", "new")
    assert judged([new, old]) == judged([old, new]) == (False, "failed", "new")


@pytest.mark.parametrize(
    ("image", "counts"),
    [
        (IMAGE, True),
        (IMAGE.replace(REGISTRY, f"{REGISTRY}:443"), True),
        (IMAGE.replace(REGISTRY, f"{REGISTRY}:5000"), False),
        (IMAGE.replace(REGISTRY, f"not.{REGISTRY}"), False),
        (f"other.io/{IMAGE}", False),
    ],
)
def test_a_pull_counts_for_the_registry_in_both_spellings_of_its_port(
    image: str, counts: bool
) -> None:
    for message, well in ((PULLED, True), (X509, False)):
        told = evidence.told(event(1, message.replace(IMAGE, image)), REGISTRY)
        assert (told[1] if told else None) is (well if counts else None)
    stuck: Any = Api(pods=[waiting(image)])
    assert bool(nodes._stuck_now(stuck, REGISTRY, {"n1": ()})) is counts
