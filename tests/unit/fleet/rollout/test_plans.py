"""What the agent is sent, and which address the registry has on which node."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from agent.wire.plan import Mirror, Plan, Verify
from moorage.configuration import parsing
from moorage.errors import Refused
from moorage.fleet.rollout import plans
from moorage.fleet.rollout.this_machine import _passing_ca
from moorage.settings import RegistrySettings, Settings

CA = _passing_ca()


def settings(**registry: object) -> Settings:
    return replace(Settings(), registry=RegistrySettings(**registry))  # type: ignore[arg-type]


def test_a_plan_survives_the_agents_own_gate() -> None:
    verify = Verify("my.registry.io:8443/app:1", "moorage", "secret")
    plan = plans.make(
        settings(port=8443), ca=CA, address="10.0.0.1", verify=verify, restart=False, replace=True
    )
    assert Plan.parse(plans.wire(plan)) == plan
    sent = json.loads(plans.wire(plan))
    assert sent["registry"] == {
        "host": "my.registry.io",
        "port": 8443,
        "address": "10.0.0.1",
        "ca": CA,
        "names": [],
        "insecure": None,
    }
    assert sent["options"]["restart"] is False
    assert sent["options"]["replace"] is True
    assert "system" not in sent["parts"]


def test_hosts_that_get_the_same_plan_are_sent_the_same_bytes() -> None:
    plan = plans.make(Settings(), ca=None, address="192.0.2.1")
    sent = plans.sent(plan)
    assert Plan.parse(sent.body) == plan
    assert sent.patience == plans.patience(plan)


def test_no_text_of_a_plan_shows_the_password() -> None:
    plan = plans.make(
        settings(), ca=CA, address=None, verify=Verify("my.registry.io/app:1", "u", "hunter2")
    )
    assert "hunter2" not in repr(plan)
    assert b"hunter2" in plans.wire(plan)
    assert "hunter2" not in repr(plans.sent(plan))


@pytest.mark.parametrize("image", ["docker.io/library/busybox:1", "busybox", "my.registry.io/A:1"])
def test_an_image_that_is_none_of_the_registrys_is_refused(image: str) -> None:
    with pytest.raises(Refused) as refusal:
        plans.make(settings(), ca=CA, address=None, verify=Verify(image, "u", "p"))
    assert refusal.value.cause
    assert refusal.value.cure


def test_a_spoilt_ca_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        plans.make(settings(), ca=CA[:200], address=None)
    assert refusal.value.code == "bad-ca"


@pytest.mark.parametrize(
    ("registry", "local", "expected"),
    [
        ({}, "192.0.2.7", "192.0.2.7"),
        ({}, "::ffff:192.0.2.7", "192.0.2.7"),
        ({}, "fd00::7", "fd00::7"),
        ({"address": "198.51.100.1"}, "192.0.2.7", "198.51.100.1"),
        ({"address": "198.51.100.1"}, "", "198.51.100.1"),
        ({"listen": "192.0.2.9"}, "192.0.2.7", "192.0.2.9"),
        ({"listen": "::"}, "192.0.2.7", "192.0.2.7"),
        ({}, "", ""),
        ({}, "127.0.0.1", ""),
        ({}, "::1", ""),
        ({}, "fe80::1%eth0", ""),
        ({}, "169.254.0.7", ""),
    ],
)
def test_the_registrys_address_on_a_node(
    registry: dict[str, object], local: str, expected: str
) -> None:
    assert plans.registry_address(settings(**registry), local) == expected


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.9", "192.0.2.9")],
)
def test_the_registrys_address_on_this_machine(listen: str, expected: str) -> None:
    assert plans.this_machines_address(settings(listen=listen)) == expected


def test_the_settings_of_nodes_reach_the_plan_of_a_node() -> None:
    wanted = parsing.with_nodes(
        settings(),
        parts="docker, podman",
        mirrors="docker.io,quay.io",
        mirror_fallback=False,
        system_store=True,
        fix_proxy=True,
    )
    plan = plans.make(wanted, ca=CA, address=None)
    assert plan.parts == ("docker", "podman", "system")
    assert plan.mirrors == (
        Mirror("docker.io", False, "docker.io"),
        Mirror("quay.io", False, "quay.io"),
    )
    assert plan.options.fix_proxy
    assert plan.registry.insecure is None


def test_they_are_no_business_of_this_machine() -> None:
    wanted = parsing.with_nodes(settings(), mirrors="docker.io", insecure="http", system_store=True)
    plan = plans.make(wanted, ca=CA, address=None, parts=plans.THIS_MACHINE_PARTS)
    assert (plan.parts, plan.mirrors) == (plans.THIS_MACHINE_PARTS, ())
    assert plan.registry.insecure is None


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"insecure": "yes"}, "nodes.insecure"),
        ({"parts": "docker,lxc"}, "plan.parts"),
        ({"mirrors": "my.registry.io"}, "itself"),
        ({"mirrors": "https://docker.io"}, "scheme"),
    ],
)
def test_words_that_no_node_understands_are_refused_here(given: dict[str, str], word: str) -> None:
    with pytest.raises(Refused) as refusal:
        plans.make(parsing.with_nodes(settings(), **given), ca=CA, address=None)
    assert word in f"{refusal.value} {refusal.value.cause} {refusal.value.cure}"


def test_only_what_a_command_says_is_changed() -> None:
    assert parsing.with_nodes(settings(), mirrors=None, fix_proxy=None) == settings()
