"""A reason why a pull fails is one row: a made-up one is told by nodes, clusters and the engine."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.wire.troubles.row import Told, Trouble
from agent.wire.troubles.table import TROUBLES, rows

ROOT = Path(__file__).parents[3]
FILE = "agent/wire/troubles/answers.py"
ROW = r"""
    Trouble(
        "registry-asleep",
        r"the harbour is closed until \w+",
        Told(
            "{registry} is closed at this hour, so {image} cannot be had",
            "{host} keeps hours",
            "wait until it opens, then run again",
        ),
    ),
)
"""
# Run in the copy. The cluster's texts are filled in by its diagnosis.
DRIVE = """
import json
from agent.wire.plan import Registry
from agent.wire.troubles.told import classify
from moorage.cluster.diagnosis import diagnosis
from moorage.cluster.symptoms import causes
from moorage.docker import engine_faults
words = 'Get "https://my.registry.io/v2/": the harbour is closed until noon'
node = classify(words, Registry("my.registry.io"), "my.registry.io/app:1")
engine = engine_faults.explain(words, "my.registry.io", "pushing my.registry.io/app:1")
cluster = causes.classify(words)
print(json.dumps({
    "node": [node.code, str(node), node.fault.cause, node.fault.cure],
    "cluster": [cluster.code, cluster.title, cluster.cause, cluster.cure],
    "engine": [engine.code, engine.message, engine.cause, engine.cure],
}))
"""


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.py")
    }


def test_a_made_up_reason_is_one_row_in_one_file(tmp_path: Path) -> None:
    for top in ("agent", "moorage"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / top, tmp_path / top, ignore=ignored)
    before, file = digests(tmp_path), tmp_path / FILE
    text = file.read_text()
    assert text.endswith("\n)\n")
    file.write_text(text[: -len("\n)\n")] + ROW)
    assert {name for name, one in digests(tmp_path).items() if one != before[name]} == {FILE}
    done = subprocess.run(
        [sys.executable, "-c", DRIVE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {side: words[0] for side, words in said.items()} == dict.fromkeys(
        ("node", "cluster", "engine"), "registry-asleep"
    )
    cure = "wait until it opens, then run again"
    assert {words[-1] for words in said.values()} == {cure}
    assert "my.registry.io is closed at this hour, so my.registry.io/app:1" in said["node"][1]
    assert said["node"][2] == "my.registry.io keeps hours"
    assert said["engine"][1].startswith("pushing my.registry.io/app:1 failed: my.registry.io is")
    assert "the harbour is closed until noon" in said["engine"][2]


def test_the_words_of_the_made_up_reason_are_nobody_elses() -> None:
    """Else the test above would show nothing."""
    plain = "the harbour is closed until noon"
    for side in ("node", "cluster", "engine"):
        assert not [row for row in rows(side) if re.search(row.words, plain, re.IGNORECASE)]


def test_a_side_without_a_text_does_not_know_the_row() -> None:
    ours = Told("a", cause="b", cure="c", words="other words")
    one = Trouble("x", "words", node=ours)
    assert rows("cluster", [one]) == ()
    [row] = rows("node", [one])
    assert (row.words, row.told) == ("other words", ours)


@pytest.mark.parametrize("one", TROUBLES, ids=lambda one: one.code)
def test_every_row_is_told_by_somebody_and_names_a_cure(one: Trouble) -> None:
    told = [text for text in (one.told, one.node, one.cluster, one.engine) if text is not None]
    assert told
    assert all(text.message and text.cure for text in told)


def unknown(text: Told) -> set[str]:
    """The fields of a text for all sides that not every side fills in."""
    named = {field for words in text[:4] for field in re.findall(r"\{(\w+)\}", words)}
    return named - {"registry", "host", "image"}


def test_a_text_for_all_sides_names_what_each_of_them_knows() -> None:
    assert unknown(Told("{registry} {nodes}", cure="{pull}")) == {"nodes", "pull"}
    assert [one.code for one in TROUBLES if one.told and unknown(one.told)] == []
