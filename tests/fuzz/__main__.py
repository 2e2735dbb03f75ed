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

import tomlkit
import tomlkit.exceptions
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from agent.edit.toml import parse
from agent.edit.toml_edit import set_string
from agent.wire.faults import PlanError
from agent.wire.plan import Plan
from tests.agent import test_toml_edit as toml
from tests.agent.authority import Authority
from tests.field.case import read_all

EXAMPLES = 500
QUIET = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
PEM = Authority().pem
FIELD = sorted(
    {
        text
        for case in read_all()
        for path, text in case.files.items()
        if path.endswith(".toml") and not text.startswith("\ufeff")
    }
)
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
    "registry.names", "registry.insecure", "registry.client", "registry.client.key", "mirrors",
    "parts", "verify", "verify.image",
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
    if registry.client is not None:
        both = registry.client.certificate + registry.client.key
        assert re.fullmatch(r"[A-Za-z0-9+/=\n -]+", both)
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


@QUIET
@given(toml.documents() | st.sampled_from(FIELD))
def tomlkit_would_leave_the_same_values(text: str) -> None:
    """Our edit beside tomlkit's: the same value in the same place, and every other value kept."""
    ours = parse(set_string(text, toml.TABLE, "config_path", "/x", toml.COMMENT).encode())
    theirs = by_tomlkit(text)
    if theirs is not None:
        assert ours == theirs, text


def by_tomlkit(text: str) -> dict[str, Any] | None:
    """The values after tomlkit has set ours, or None if it refuses the file or loses the write.

    tomlkit 0.15.2 refuses a table below its own sub-tables, which containerd reads. So it judges
    here, and does not edit on a node.
    """
    try:
        document: Any = tomlkit.parse(text)
        table = document
        for name in toml.TABLE:
            if name not in table:
                table[name] = tomlkit.table()
            table = table[name]
        table["config_path"] = "/x"
        left = parse(tomlkit.dumps(document).encode())
    except (tomlkit.exceptions.TOMLKitError, ValueError):
        return None
    found: Any = left
    for name in (*toml.TABLE, "config_path"):
        found = found.get(name) if isinstance(found, dict) else None
    return left if found == "/x" else None


CHECKS = (
    any_bytes,
    any_value_in_any_place,
    a_few_bytes_of_a_plan_changed,
    the_scanner_sees_what_the_parser_sees,
    set_then_unset_gives_every_byte_back,
    tomlkit_would_leave_the_same_values,
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
