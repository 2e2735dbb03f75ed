"""Settings: every key has a type and a default; what is wrong is named with its place."""

from __future__ import annotations

from typing import Any

import pytest

from moorage import settings
from moorage.configuration import parsing
from moorage.errors import Refused


def test_defaults_are_the_names_of_the_tutorial() -> None:
    parsed = parsing.parse({})
    assert parsed.registry_name == "my.registry.io"
    assert parsed.image_reference == "my.registry.io/serve_hostname:0.0.1"


def test_defaults_for_invoke_parse_to_the_defaults() -> None:
    assert parsing.parse(settings.defaults()) == settings.Settings()


def test_a_port_travels_in_the_name() -> None:
    parsed = parsing.parse({"registry": {"port": 5443}})
    assert parsed.registry_name == "my.registry.io:5443"
    assert parsed.image_reference == "my.registry.io:5443/serve_hostname:0.0.1"


def test_lists_may_be_words_with_commas_as_the_environment_gives_them() -> None:
    assert parsing.parse({"nodes": {"hosts": "a, b,c"}}).nodes.hosts == ("a", "b", "c")
    assert parsing.parse({"nodes": {"hosts": ["a", "b"]}}).nodes.hosts == ("a", "b")


@pytest.mark.parametrize(
    "host",
    ["https://u:geheim@x.io/", "http://u:geheim@x.io", "u:geheim@x.io", "https://geheim@x.io"],
)
def test_a_password_in_an_address_is_not_repeated(host: str) -> None:
    with pytest.raises(Refused) as refusal:
        parsing.parse({"registry": {"host": host}})
    told = f"{refusal.value} {refusal.value.cause} {refusal.value.cure}"
    assert "geheim" not in told
    assert "...@x.io" in told


def test_unknown_key_names_its_nearest_neighbour() -> None:
    with pytest.raises(Refused) as refusal:
        parsing.parse({"registry": {"hots": "x.io"}})
    assert refusal.value.cause == "did you mean registry.host?"


def test_unknown_section_names_its_nearest_neighbour() -> None:
    with pytest.raises(Refused, match="registri") as refusal:
        parsing.unknown_sections({"registri": {}}, frozenset({"run"}), source="invoke.yaml")
    assert "registry" in refusal.value.cause


def test_misspelt_variable_is_not_passed_over() -> None:
    with pytest.raises(Refused, match="INVOKE_REGISTRY_PROT"):
        parsing.unknown_variables({"INVOKE_REGISTRY_PROT": "1"})
    parsing.unknown_variables({"INVOKE_REGISTRY_PORT": "1", "INVOKE_DEBUG": "1", "HOME": "/"})


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("engine", "data", "docker", "a folder from the root"),
        ("engine", "data", "/docker\0", "a folder from the root"),
        ("registry", "port", "443", "a whole number"),
        ("registry", "port", True, "a whole number"),
        ("registry", "port", 0, "from 1 to 65535"),
        ("registry", "port", 70000, "from 1 to 65535"),
        ("registry", "metrics_port", 443, "other than registry.port"),
        ("registry", "host", "https://my.registry.io", "without the scheme"),
        ("registry", "host", "My.registry.io", "lower case"),
        ("registry", "host", "my_registry.io", "a DNS name"),
        ("registry", "host", "my.registry.io:5000", "registry.port"),
        ("registry", "host", "-a.io", "a DNS name"),
        ("registry", "host", "a..io", "a DNS name"),
        ("registry", "host", "a.io\nb.io", "a DNS name"),
        ("registry", "host", "10.0.0.1", "not an address"),
        ("registry", "host", "registry", "with a dot"),
        ("registry", "host", "", "a DNS name"),
        ("registry", "host", f"{'a' * 64}.io", "a DNS name"),
        ("registry", "host", 5, "in quotes"),
        ("registry", "address", "nowhere", "an IP address"),
        ("registry", "listen", "auto", "an IP address"),
        ("registry", "user", "a:b", "letters"),
        ("image", "tag", 1.0, 'a word in quotes ("1.0")'),
        ("image", "tag", "a b", "a tag"),
        ("image", "name", "Serve", "lower case"),
        ("certs", "key", "rsa", "ec-p256 or rsa-4096"),
        ("certs", "days", 0, "from 1 to 36500"),
        ("certs", "renew_before", 400, "fewer days"),
        ("certs", "names", ["Bad Name"], "lower case"),
        ("certs", "names", [1], "a list of words"),
        ("nodes", "parallel", 0, "from 1 to 1000"),
    ],
)
def test_wrong_value_names_key_and_what_is_expected(
    section: str, key: str, value: Any, expected: str
) -> None:
    with pytest.raises(Refused) as refusal:
        parsing.parse({section: {key: value}})
    assert f"{section}.{key}" in refusal.value.message
    assert expected in refusal.value.cause
    assert refusal.value.cure


def test_a_section_that_is_a_word_is_refused() -> None:
    with pytest.raises(Refused, match="registry"):
        parsing.parse({"registry": "my.registry.io"})


def test_an_empty_section_is_its_defaults() -> None:
    assert parsing.parse({"registry": None}) == settings.Settings()
