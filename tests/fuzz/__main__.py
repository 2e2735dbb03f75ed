"""Feeds the plan parser and the TOML edit what nobody would send, for a given number of seconds.

Hypothesis chooses the bytes; each round has another seed, which a failure names, so that
``python -m tests.fuzz SECONDS SEED`` meets it again.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from agent.wire.faults import PlanError
from agent.wire.plan import Plan
from tests.agent import test_toml_edit as toml
from tests.agent.authority import Authority

EXAMPLES = 500
QUIET = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
PEM = Authority().pem
SPICE = st.sampled_from(
    ["", "\x00", "\n", "..", "/etc/shadow", '"', "]\n[x]", "my.registry.io", "my.registry.io:443",
     "10.0.0.1", "::1", "docker.io", "a/b:c", "x@sha256:0", PEM, "\u202e", "\ud800"]
)  # fmt: skip
VALUE: st.SearchStrategy[Any] = st.recursive(
    SPICE | st.text(max_size=40) | st.integers() | st.booleans() | st.none() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SPICE, inner, max_size=4),
    max_leaves=12,
)
NAMES = (
    "version", "registry", "registry.host", "registry.port", "registry.address", "registry.ca",
    "registry.names", "registry.insecure", "mirrors", "parts", "verify", "verify.image",
    "verify.username", "options", "options.lock_wait", "unheard-of",
)  # fmt: skip
PLACES = tuple(tuple(name.split(".")) for name in NAMES)


def plan() -> dict[str, Any]:
    return {
        "version": 1,
        "registry": {"host": "my.registry.io", "address": "10.0.0.1", "ca": PEM},
        "verify": {"image": "my.registry.io/a:1", "username": "u", "password": "p"},
        "options": {},
    }


def _inner(test: Any) -> Any:
    """The property that a test of the usual sessions holds, without its number of examples."""
    return test.hypothesis.inner_test


def held(content: bytes) -> None:
    """PlanError or a plan, and then one that can do no harm and means itself."""
    try:
        made = Plan.parse(content)
    except PlanError:
        return
    registry = made.registry
    for name in (registry.host, *registry.names):
        assert re.fullmatch(r"[a-z0-9.-]{1,253}", name), name
    assert registry.address is None or re.fullmatch(r"[0-9a-f.:]+", registry.address)
    assert registry.ca is None or re.fullmatch(r"[A-Za-z0-9+/=\n -]+", registry.ca)
    for mirror in made.mirrors:
        assert re.fullmatch(r"[a-z0-9.:-]+", mirror.of), mirror
    if made.verify is not None:
        assert re.fullmatch(r"[\w./:@+-]+", made.verify.image, re.ASCII)
    assert Plan.parse(json.dumps(made.to_json()).encode()) == made


@QUIET
@given(st.binary(max_size=4000))
def any_bytes(content: bytes) -> None:
    held(content)


@QUIET
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUE), min_size=1, max_size=3))
def any_value_in_any_place(changes: list[tuple[tuple[str, ...], Any]]) -> None:
    document = plan()
    for place, value in changes:
        target: Any = document
        for step in place[:-1]:
            target = target.get(step) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target[place[-1]] = value
    held(json.dumps(document).encode())


@QUIET
@given(st.data())
def a_few_bytes_of_a_plan_changed(data: st.DataObject) -> None:
    content = bytearray(json.dumps(plan()).encode())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.integers(0, 8))
        content[place : place + cut] = data.draw(st.binary(max_size=8))
    held(bytes(content))


@QUIET
@given(toml.documents())
def the_scanner_sees_what_the_parser_sees(text: str) -> None:
    _inner(toml.test_the_scanner_sees_what_the_parser_sees)(text)


@QUIET
@given(toml.documents())
def set_then_unset_gives_every_byte_back(text: str) -> None:
    _inner(toml.test_set_then_unset_gives_every_byte_back)(text)


CHECKS = (
    any_bytes,
    any_value_in_any_place,
    a_few_bytes_of_a_plan_changed,
    the_scanner_sees_what_the_parser_sees,
    set_then_unset_gives_every_byte_back,
)


def main(words: list[str]) -> int:
    seconds = float(words[0]) if words else 240.0
    number = int(words[1]) if words[1:] else time.time_ns() % 1_000_000_007
    deadline = time.monotonic() + seconds
    rounds = 0
    while True:
        for check in CHECKS:
            try:
                seed(number)(check)()
            except BaseException:
                sys.stderr.write(f"fuzz: again with `python -m tests.fuzz 0 {number}`\n")
                raise
        rounds, number = rounds + 1, number + 1
        if time.monotonic() >= deadline:
            break
    print(f"fuzz: {rounds * len(CHECKS) * EXAMPLES} examples, 0 failures")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
