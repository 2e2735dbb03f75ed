"""Plans: what is read, what is refused, and with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.wire.faults import PlanError
from agent.wire.plan import DEFAULT_PARTS, MAX_PLAN_BYTES, PARTS, Mirror, Plan, reference
from agent.wire.regenerate import SCHEMA
from tests.agent.authority import Authority
from tests.agent.conftest import Box
from tests.agent.words.certificates import own


def parse(document: Any) -> Plan:
    return Plan.parse(json.dumps(document).encode())


def refusal(document: Any) -> PlanError:
    with pytest.raises(PlanError) as caught:
        parse(document)
    assert caught.value.fault.cure
    return caught.value


def test_a_plan_survives_the_wire(box: Box) -> None:
    plan = parse(box.document(parts=["docker", "hosts"], options={"restart": False}))
    assert plan.parts == ("hosts", "docker")
    assert plan.registry.name == "my.registry.io"
    assert not plan.options.restart
    assert parse(plan.to_json()) == plan


def test_defaults_are_those_of_the_schema(box: Box) -> None:
    plan = parse({"version": 1, "registry": {"host": "my.registry.io"}})
    assert plan.parts == DEFAULT_PARTS
    assert "system" not in plan.parts
    assert (plan.registry.names, plan.registry.insecure, plan.mirrors) == ((), None, ())
    assert not plan.options.fix_proxy
    assert plan.verify is None
    assert plan.options.restart
    assert plan.registry.port == 443
    with pytest.raises(PlanError):
        plan.require_ca()


def test_the_parts_are_those_of_the_schema_and_of_the_table() -> None:
    properties = json.loads(SCHEMA.read_text("utf-8"))["properties"]
    assert properties["parts"]["items"]["enum"] == list(PARTS)
    assert properties["parts"]["default"] == list(DEFAULT_PARTS)


@pytest.mark.parametrize(
    ("registry", "spelled"),
    [
        ({}, ["my.registry.io", "my.registry.io:443"]),
        ({"port": 5000}, ["my.registry.io:5000"]),
        ({"port": 80}, ["my.registry.io:80"]),
        ({"insecure": "http", "port": 80}, ["my.registry.io", "my.registry.io:80"]),
        ({"insecure": "http", "port": 443}, ["my.registry.io:443"]),
        ({"names": ["a.b"]}, ["my.registry.io", "my.registry.io:443", "a.b", "a.b:443"]),
    ],
)
def test_a_registry_on_the_usual_port_is_spelled_in_two_ways(
    box: Box, registry: dict[str, Any], spelled: list[str]
) -> None:
    plan = parse(box.document(registry=registry, verify=None))
    assert [one.name for one in plan.registry.spellings] == spelled
    assert parse(plan.to_json()) == plan
    for name in spelled:
        of_its_own = name.partition(":")[0] == "my.registry.io"
        assert (plan.registry.reference(f"{name}/app:1") is not None) is of_its_own
    assert plan.registry.reference("my.registry.io:444/app:1") is None
    with pytest.raises(PlanError, match="not a mirror of itself"):
        parse(box.document(registry=registry, verify=None, mirrors=[{"of": spelled[-1]}]))


def test_the_proving_image_may_have_the_usual_port_in_its_name(box: Box) -> None:
    verify = {"image": "my.registry.io:443/app:1", "username": None, "password": None}
    plan = parse(box.document(verify=verify))
    assert plan.verify is not None
    assert plan.verify.image == "my.registry.io:443/app:1"
    assert plan.registry.name == "my.registry.io"  # what our notes on the node are kept by


def test_further_names_and_mirrors_survive_the_wire(box: Box) -> None:
    document = box.document(
        registry={"names": ["cache.registry.io"], "port": 5000},
        mirrors=[{"of": "docker.io"}, {"of": "quay.io:8443", "fallback": False}],
        verify=None,
    )
    plan = parse(document)
    assert [one.name for one in plan.registry.each] == [
        "my.registry.io:5000",
        "cache.registry.io:5000",
    ]
    assert plan.mirrors == (Mirror("docker.io"), Mirror("quay.io:8443", fallback=False))
    assert plan.mirrors[0].upstream == "https://registry-1.docker.io"
    assert parse(plan.to_json()) == plan


def test_plain_http_is_asked_for_by_that_word_and_needs_no_ca(box: Box) -> None:
    plan = parse(box.document(registry={"ca": None, "insecure": "http", "port": 80}))
    plan.require_ca()
    assert (plan.registry.name, plan.registry.url) == ("my.registry.io", "http://my.registry.io")
    secure = box.document(registry={"insecure": True})
    assert refusal(secure).code == "plan-invalid"
    assert refusal(box.document(registry={"insecure": "tls"})).code == "plan-invalid"


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"mirrors": [{"of": "my.registry.io"}]}, "itself"),
        ({"mirrors": [{"of": "docker.io"}, {"of": "docker.io"}]}, "twice"),
        ({"mirrors": [{"of": "docker.io:0"}]}, "port"),
        ({"mirrors": [{"of": "docker.io/library"}]}, "path"),
        ({"mirrors": [{"of": 'docker.io"'}]}, "DNS name"),
        ({"mirrors": [{"of": "hub"}]}, "no dot"),
        ({"mirrors": [{"of": "docker.io", "prefix": "x"}]}, "mirrors[0]"),
        ({"registry": {"names": ["my.registry.io"]}}, "already"),
        ({"registry": {"names": ["a.io\n10.0.0.1 evil"]}}, "DNS name"),
        ({"registry": {"names": ["a.io", "a.io"]}}, "unique"),
    ],
)
def test_names_and_mirrors_that_no_runtime_takes_are_refused(
    box: Box, more: dict[str, Any], word: str
) -> None:
    assert word in str(refusal(box.document(**more)))


def test_no_repr_shows_the_password(box: Box) -> None:
    assert "pass-word-1" not in repr(box.plan())


def test_the_port_is_part_of_the_name_unless_it_is_443(box: Box) -> None:
    document = box.document(registry={"port": 5000}, verify=None)
    assert parse(document).registry.name == "my.registry.io:5000"
    assert parse(document).registry.url == "https://my.registry.io:5000"


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ("My.registry.io", "upper-case"),
        ("https://my.registry.io", "scheme"),
        ("my.registry.io:5000", "port"),
        ("my.registry.io\n10.0.0.1 evil", "DNS name"),
        ('my".io', "DNS name"),
        ("my..io", "DNS name"),
        ("-a.io", "DNS name"),
        ("a" * 64 + ".io", "DNS name"),
        ("10.0.0.1", "address"),
        ("registry", "Docker Hub"),
        ("my.registry.io.", "DNS name"),
        ("../../etc", "path"),
        ("..", "DNS name"),
    ],
)
def test_a_registry_name_that_is_no_dns_name_is_refused(box: Box, host: str, word: str) -> None:
    error = refusal(box.document(registry={"host": host}, verify=None))
    assert error.code == "bad-registry-name"
    assert word in error.fault.message


@pytest.mark.parametrize(
    "address", ["10.0.0.256", "10.0.0.1\n", "0.0.0.0", "fe80::1%eth0", "224.0.0.1", "x", ""]
)
def test_an_address_that_is_none_is_refused(box: Box, address: str) -> None:
    assert refusal(box.document(registry={"address": address})).code == "bad-address"


def test_an_ipv6_address_is_written_the_short_way(box: Box) -> None:
    plan = parse(box.document(registry={"address": "FD00:0:0::1"}))
    assert plan.registry.address == "fd00::1"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pem: pem[: len(pem) // 2],
        lambda pem: pem.replace("M", "!", 1),
        lambda pem: "",
        lambda pem: pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        lambda pem: pem[:200] + pem[264:],
        lambda pem: pem + "-----BEGIN CERTIFICATE-----\nMII",
    ],
)
def test_a_damaged_ca_is_refused(box: Box, spoil: Any) -> None:
    assert refusal(box.document(registry={"ca": spoil(box.ca)})).code == "bad-ca"


def test_a_servers_certificate_is_no_ca(box: Box, authority: Authority) -> None:
    leaf, key = authority.issue("my.registry.io")
    refused = refusal(box.document(registry={"ca": leaf.decode()}))
    assert refused.code == "bad-ca"
    assert "that a CA signed" in refused.fault.message
    assert "openssl x509 -noout -issuer" in refused.fault.cure
    assert refusal(box.document(registry={"ca": box.ca + key.decode()})).code == "ca-has-key"


@pytest.mark.parametrize("names", [("my.registry.io",), ()])
def test_a_servers_certificate_that_signed_itself_is_its_own_ca(
    box: Box, names: tuple[str, ...]
) -> None:
    pem = own(names, common_name="my.registry.io")[0].decode()
    assert box.plan(registry={"ca": pem}).registry.ca == pem


def test_text_around_certificates_does_not_reach_the_node(box: Box) -> None:
    plan = parse(box.document(registry={"ca": "# my CA\r\n" + box.ca.replace("\n", "\r\n")}))
    assert plan.registry.ca == box.ca


@pytest.mark.parametrize(
    "image",
    [
        "docker.io/app:1",
        "my.registry.io",
        "my.registry.io/",
        "my.registry.io/App",
        "my.registry.io/app:1 x",
        "my.registry.io/app@sha256:12",
        "my.registry.io:5000/app",
        "my.registry.io/../x",
        "my.registry.io/a\n",
    ],
)
def test_an_image_that_is_not_under_the_registry_is_refused(box: Box, image: str) -> None:
    assert refusal(box.document(verify={"image": image})).code == "bad-image"


def test_references_are_taken_apart() -> None:
    digest = "sha256:" + "a" * 64
    full = reference(f"my.registry.io/a/b_c:1.0@{digest}", "my.registry.io")
    assert full is not None
    assert (full.repository, full.version) == ("a/b_c", digest)
    plain = reference("my.registry.io/a", "my.registry.io")
    assert plain is not None
    assert plain.version == "latest"


@pytest.mark.parametrize(
    "verify",
    [
        {"image": "my.registry.io/a", "username": "u"},
        {"image": "my.registry.io/a", "username": "", "password": ""},
        {"image": "my.registry.io/a", "username": "u:v", "password": "p"},
        {"image": "my.registry.io/a", "username": "u", "password": "p\r\nX: y"},
        {"image": 1},
        {},
        [],
    ],
)
def test_a_login_that_cannot_be_sent_is_refused(box: Box, verify: Any) -> None:
    assert refusal(box.document(verify=verify)).code == "plan-invalid"


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"parts": []}, "plan.parts"),
        ({"parts": ["lxc"]}, "plan.parts"),
        ({"parts": ["docker", "docker"]}, "plan.parts"),
        ({"options": {"force": True}}, "force"),
        ({"options": {"restart": "no"}}, "plan.options.restart"),
        ({"registry": {"port": 0}}, "plan.registry.port"),
        ({"registry": {"port": True}}, "plan.registry.port"),
        ({"registry": {"folder": "/etc"}}, "folder"),
        ({"hosts": []}, "hosts"),
        ({"version": True}, "plan.version"),
        ({"version": 0}, "plan.version"),
    ],
)
def test_a_field_that_does_not_fit_is_named(box: Box, more: Any, place: str) -> None:
    error = refusal(box.document(**more))
    assert error.code == "plan-invalid"
    assert place in error.fault.message


def test_a_newer_plan_is_refused_by_name(box: Box) -> None:
    error = refusal(box.document(version=2, surprise={}))
    assert error.code == "plan-too-new"
    assert "version 2" in error.fault.message


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"{",
        b'{"version": 1, "version": 1}',
        b'{"version": NaN}',
        b'{"version": 1.0}',
        b'{"version": 1e999}',
        b'{"version": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 9 + b"1" + b"}" * 9,
        b'{"a": "\\ud800"}{',
    ],
)
def test_what_is_not_one_json_document_is_refused(text: bytes) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.parse(text)
    assert caught.value.code == "plan-not-json"


def test_a_plan_of_more_than_a_mebibyte_is_refused() -> None:
    with pytest.raises(PlanError) as caught:
        Plan.parse(b" " * (MAX_PLAN_BYTES + 1))
    assert caught.value.code == "plan-too-big"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
FIELDS = st.sampled_from(
    ["version", "registry", "host", "port", "ca", "address", "parts", "verify", "image", "options"]
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"null")
@settings(max_examples=300)
def test_the_parser_raises_nothing_but_its_own_error(text: bytes) -> None:
    try:
        Plan.parse(text)
    except PlanError as error:
        assert error.code


@given(place=st.lists(FIELDS, min_size=1, max_size=2), value=JSON)
@settings(max_examples=300)
def test_any_value_in_any_place_is_read_or_refused(box: Box, place: list[str], value: Any) -> None:
    document: Any = box.document()
    inner = document
    for key in place[:-1]:
        inner = inner.setdefault(key, {})
        if not isinstance(inner, dict):
            return
    inner[place[-1]] = value
    try:
        plan = Plan.parse(json.dumps(document).encode())
    except PlanError:
        return
    text = f"{plan.registry.host}{plan.registry.address}"
    assert not set(text) & set("\n\r\"'\\/ #")


def test_the_generated_checker_is_up_to_date() -> None:
    fastjsonschema = pytest.importorskip("fastjsonschema")
    from agent.wire import regenerate

    if not fastjsonschema.VERSION.startswith("2.22"):
        pytest.skip("another fastjsonschema than the lock's writes other code")
    assert Path(regenerate.TARGET).read_text("utf-8") == regenerate.generated()


def test_the_collected_runtimes_are_up_to_date() -> None:
    from agent.wire import regenerate

    assert regenerate.DECLARED.read_text("utf-8") == regenerate.table()
    assert SCHEMA.read_text("utf-8") == regenerate.schema()
