"""The tables of the node's side and of the cluster's call what was heard by the same name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.wire.plan import Registry
from agent.wire.troubles.told import classify
from moorage.cluster.symptoms import causes

WORDS = Path(__file__).parents[2] / "agent" / "words"
# The cluster's table goes further: a cure of its own for each, or a status that has one there.
FINER = {
    ("x509-wrong-name", "x509-common-name"),
    ("x509-expired", "x509-not-yet-valid"),
    ("pull-failed", "plain-to-https"),
    ("content-damaged", "registry-timeout"),
}


@pytest.mark.parametrize(
    "path", sorted(WORDS.glob("containerd-*.json")), ids=lambda path: path.stem
)
def test_a_complaint_has_one_name(path: Path) -> None:
    said = json.loads(path.read_text())
    assert len(said) > 40
    for situation, words in said.items():
        if words != "pulled":
            node = classify(words, Registry("reg.test", 5000), "reg.test:5000/app:1").code
            cluster = causes.classify(words).code
            assert node == cluster or (node, cluster) in FINER, (situation, words)
