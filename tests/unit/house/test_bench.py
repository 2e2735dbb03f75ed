"""What the bench says of its figures: held, missed, or too noisy to tell; and what a run took."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.bench import container
from tests.bench.measure import Row, limited, paired, spent
from tests.bench.noise import Place, look

QUIET, NOISY = Place(0.02), Place(0.4)


def test_the_ratio_is_that_of_the_turns_and_not_of_two_medians() -> None:
    row = paired("x", [1.0, 2.0, 8.0], [1.0, 4.0, 8.0], "s", 1.0)
    assert (row.ours, row.peer, row.ratio, row.held) == (2.0, 4.0, 1.0, True)


def test_a_miss_counts_in_a_quiet_place_with_runs_that_agree_alone() -> None:
    agreed = limited("x", [11, 12, 11], 10, "ms")
    torn = limited("x", [11, 30, 90], 10, "ms")
    assert QUIET.verdict(agreed) == "MISSED"
    assert NOISY.verdict(agreed) == "noisy"
    assert QUIET.verdict(torn) == "noisy"
    assert NOISY.verdict(Row("x", 9, 10, "ms", 1)) == "held"
    assert (QUIET.words, "40%" in NOISY.words) == ("", True)


def test_a_look_at_the_place_is_a_share_of_its_processors() -> None:
    assert 0 <= look(0.05).others <= 1


def test_a_run_is_measured_with_its_children_and_its_failure_told() -> None:
    burn = "import time\nwhile time.process_time() < 0.05: pass"
    words = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    assert spent([sys.executable, "-c", words], os.environ).operator >= 0.05
    with pytest.raises(RuntimeError, match="ends with 3: said"):
        spent([sys.executable, "-c", "print('said'); raise SystemExit(3)"], os.environ)


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("4:memory:/docker/ID\n2:cpuacct:/docker/ID/init.scope\n0::/docker/ID\n",
         "cpuacct/docker/ID/cpuacct.usage"),
        ("3:cpu,cpuacct:/docker/ID\n", "cpuacct/docker/ID/cpuacct.usage"),
        ("0::/system.slice/docker-ID.scope/init.scope\n", "system.slice/docker-ID.scope/cpu.stat"),
    ],
)  # fmt: skip
def test_a_containers_account_is_found_under_both_hierarchies(groups: str, file: str) -> None:
    assert container._account(groups, "ID") == container.MOUNT / file


def test_an_account_is_read_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "cpuacct.usage").write_text("2500000000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    for name in ("cpuacct.usage", "cpu.stat"):
        assert container.Container("", tmp_path / name).processor_seconds() == 2.5
