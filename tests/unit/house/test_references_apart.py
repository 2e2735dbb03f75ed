"""Image references come apart by one rule, wherever one stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage import references

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("busybox", ("busybox", "", "")),
        ("busybox:1", ("busybox", "1", "")),
        ("my.registry.io:5000/a/b", ("my.registry.io:5000/a/b", "", "")),
        ("my.registry.io:5000/a/b:1", ("my.registry.io:5000/a/b", "1", "")),
        (f"a@{DIGEST}", ("a", "", DIGEST)),
        (f"[::1]:5000/a:1@{DIGEST}", ("[::1]:5000/a", "1", DIGEST)),
        ("", ("", "", "")),
    ],
)
def test_a_port_is_no_tag_and_a_digest_has_a_colon_of_its_own(
    text: str, apart: tuple[str, str, str]
) -> None:
    assert references.split(text) == apart


@pytest.mark.parametrize(
    ("text", "home"),
    [
        ("busybox:1", ("docker.io", "library/busybox")),
        ("team/app", ("docker.io", "team/app")),
        ("index.docker.io/busybox", ("docker.io", "library/busybox")),
        ("localhost/app", ("localhost", "app")),
        ("host:5000/app:1", ("host:5000", "app")),
        ("Team/app", ("Team", "app")),  # no repository has a capital, so it is a host
        (f"r.io/a/b@{DIGEST}", ("r.io", "a/b")),
    ],
)
def test_what_a_name_leaves_unsaid_is_docker_hubs(text: str, home: tuple[str, str]) -> None:
    assert references.home_of(text) == home


@given(
    st.from_regex(r"[a-z]+(\.[a-z]+)?(:[0-9]{1,5})?(/[a-z]+){1,3}", fullmatch=True),
    st.from_regex(r"([a-z0-9][a-z0-9._-]{0,9})?", fullmatch=True),
    st.sampled_from(("", DIGEST)),
)
def test_what_was_put_together_comes_apart(name: str, tag: str, digest: str) -> None:
    text = name + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    assert references.split(text) == (name, tag, digest)
