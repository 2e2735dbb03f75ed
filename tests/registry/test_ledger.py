"""The ledger of the long run: what a stopped one has done counts, and is not done again."""

from __future__ import annotations

from pathlib import Path

from tests.registry.interleavings import Tally
from tests.registry.ledger import Ledger


def test_a_stopped_run_goes_on_with_the_seeds_that_are_left(tmp_path: Path) -> None:
    begun = Ledger.begin(tmp_path / "l", 7, 60)
    assert begun.left() == {7: 25, 8: 25, 9: 10}
    begun.note(8, Tally(25, pushed=3, lost=["x"]))
    begun.note(9, Tally(10, pushed=4))
    text = (tmp_path / "l").read_text()
    (tmp_path / "l").write_text(text[:-5])  # a death amid the last line
    found = Ledger.read(tmp_path / "l")
    assert (found.first, found.count, found.left()) == (7, 60, {7: 25, 9: 10})
    assert found.sum() == Tally(25, pushed=3, lost=["x"])
