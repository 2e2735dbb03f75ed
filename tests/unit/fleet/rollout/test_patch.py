"""A diff that the agent sends gives back the very file it was made for."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.fleet.rollout.patch import patched

LINES = st.lists(st.sampled_from(["a", "b", "+c", "-d", "", " e", "--- x", "@@ -1 +1 @@", "\\ N"]))


def diff(before: str, after: str, *, is_new: bool = False) -> str:
    """As agent.engine.engine writes it."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        "/dev/null" if is_new else "/f",
        "/f",
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def text(lines: list[str], ended: bool) -> str:
    whole = "\n".join(lines)
    return whole + "\n" if ended and lines else whole


@given(LINES, st.booleans(), LINES, st.booleans())
def test_patching_gives_the_file_after(
    one: list[str], one_ended: bool, two: list[str], two_ended: bool
) -> None:
    before, after = text(one, one_ended), text(two, two_ended)
    assert patched(before, diff(before, after)) == after


def test_a_new_file_has_nothing_before() -> None:
    assert patched(None, diff("", "a\nb\n", is_new=True)) == "a\nb\n"


def test_a_diff_of_another_file_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        patched("x\ny\n", diff("a\nb\n", "a\nc\n"))
