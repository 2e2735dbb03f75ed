"""Profiles: settings and state of its own for each registry of one checkout, in every task."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tasks
from moorage import settings
from moorage.configuration import profiles
from moorage.configuration.parsing import parse
from moorage.docker import engine
from moorage.errors import Refused
from moorage.output.typed import PROFILE, VARIABLE, typed, typed_document
from moorage.program import completion
from moorage.registry import container
from moorage.upkeep import installing, schedule
from tests.unit.elsewhere import checkout
from tests.unit.program.test_help import inv

EU = "registry: {host: eu.registry.io, port: 5443, metrics_port: 5002}\n"
BACKUP = "upkeep: {backup: /mnt/safe, passphrase_file: /root/phrase}\n"
FRESH = parse({})
OURS = parse({}, profile="eu-1")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "invoke.eu-1.yaml").write_text(EU)
    return checkout(tmp_path)


def host(out: str) -> Any:
    rows = json.loads(out)["settings"]
    return next(one["value"] for one in rows if one["place"] == "registry.host")


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["--profile=eu-1", "config.show", "--json"], {}),
        (["--profile", "eu-1", "config.show", "--json"], {}),
        (["config.show", "--profile=eu-1", "--json"], {}),
        (["config.show", "--json", "--profile", "eu-1"], {}),
        (["config.show", "--json"], {"INVOKE_PROFILE": "eu-1"}),
        (["--profile=eu-1", "config.show", "--json"], {"INVOKE_PROFILE": "another"}),
    ],
)
def test_a_profile_is_named_before_or_after_the_task_or_in_the_environment(
    project: Path, words: list[str], variables: dict[str, str]
) -> None:
    ((code, out, err),) = inv(project, words, **variables)
    assert code == 0, err
    document = json.loads(out)
    assert host(out) == "eu.registry.io"
    assert document["profile"] == "eu-1"
    assert document["files"] == ["invoke.eu-1.yaml"]


def test_nothing_of_the_default_profile_counts_and_it_can_be_named(project: Path) -> None:
    (project / "invoke.yaml").write_text("registry: {host: home.registry.io, user: somebody}\n")
    ((_, ours, _),) = inv(project, ["config.show", "--json", "--changed"], INVOKE_PROFILE="eu-1")
    assert "somebody" not in ours
    named = ["config.show", "--json", "--profile=default"]
    ((_, out, err),) = inv(project, named, INVOKE_PROFILE="eu-1")
    assert host(out) == "home.registry.io", err
    assert json.loads(out)["profile"] == ""


def test_an_unknown_profile_names_file_profiles_and_the_next_command(project: Path) -> None:
    ((code, out, err),) = inv(project, ["nodes.trust", "--profile=eu-2", "--json"])
    assert code == 2
    error = json.loads(out)["error"]
    assert error["code"] == "no-profile"
    assert str(project / "invoke.eu-2.yaml") in error["message"]
    assert "profiles that exist: eu-1" in error["cause"]
    assert error["cure"] == "inv --profile=eu-1 config.show"
    assert not (project / "profiles").exists(), err


@pytest.mark.parametrize("name", ["front", "a-front", "cache-localhost", "a-cache-docker"])
def test_a_name_that_one_of_our_containers_has_is_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        profiles.chosen([f"--profile={name}"], {})
    assert "another container's name" in str(caught.value)
    assert profiles.chosen(["--profile=frontend"], {}).profile == "frontend"
    assert profiles.chosen(["--profile=cache"], {}).profile == "cache"


@pytest.mark.parametrize(
    "name",
    ["../x", "..", "/etc/x", "a/b", "A", "1a", "-a", "a-", "a" * 33, "a.b", "a b", "a\n", "é", ""],
)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_name_that_could_lead_elsewhere_is_refused(name: str, by: str) -> None:
    words = [f"--profile={name}"] if by == "option" else []
    environment = {} if by == "option" else {PROFILE: name}
    if by == "environment" and not name:
        assert profiles.chosen([], environment).profile == ""
        return
    with pytest.raises(Refused) as caught:
        profiles.chosen(["inv", *words, "doctor"], environment)
    assert caught.value.code == "bad-profile"
    assert len(str(caught.value)) < 200


def test_the_longest_name_makes_names_that_every_setting_allows() -> None:
    name = "a" + "1" * 31
    line = profiles.chosen(["inv", f"--profile={name}"], {})
    found = parse(settings.defaults(line.profile), profile=line.profile)
    assert found == parse({}, profile=name)
    assert name in found.registry.container
    assert name in found.kubernetes.agents_namespace


def test_a_refused_profile_is_told_with_commands_that_carry_none(project: Path) -> None:
    ((code, _, err),) = inv(project, ["doctor"], INVOKE_PROFILE="../../etc")
    assert code == 2
    assert "invalid profile '../../etc'" in err
    assert "more: inv explain bad-profile" in err


def test_two_profiles_in_one_command_are_refused(project: Path) -> None:
    ((code, _, err),) = inv(project, ["--profile=eu-1", "up", "--profile=default"])
    assert code == 2
    assert "one command is for one profile" in err
    ((code, out, _),) = inv(project, ["--profile=eu-1", "config.show", "--profile=eu-1", "--json"])
    assert code == 0
    assert host(out) == "eu.registry.io"


def test_a_broken_file_of_a_profile_is_named(project: Path) -> None:
    (project / "invoke.eu-1.yaml").write_text("registry: {\n")
    ((code, _, err),) = inv(project, ["--profile=eu-1", "doctor"])
    assert code == 2
    assert "invoke.eu-1.yaml cannot be read" in err
    (project / "invoke.eu-1.yaml").write_text("registry: {hots: a.b}\n")
    ((code, _, err),) = inv(project, ["config.check", "--profile=eu-1"])
    assert code == 2
    assert "registry.hots in invoke.eu-1.yaml" in err


def test_state_certificates_log_and_lock_are_apart(project: Path) -> None:
    ((code, _, err),) = inv(project, ["--profile=eu-1", "certs.issue"])
    assert code == 0, err
    home = project / "profiles" / "eu-1"
    assert (home / "certs" / "ca.key").exists()
    assert (home / ".moorage" / "lock").exists()
    assert not (project / "certs").exists()
    assert not (project / ".moorage").exists()
    assert all(path.stat().st_mode & 0o077 == 0 for path in (home / "certs", home / ".moorage"))
    ((_, out, _),) = inv(project, ["--profile=eu-1", "certs.show", "--json"])
    ((code, _, err),) = inv(project, ["certs.show"])
    assert code == 2
    assert str(project / "certs" / "ca.crt") in err
    assert "eu.registry.io" in out


def test_a_failed_command_leaves_its_log_with_its_profile(project: Path) -> None:
    ((_, _, err),) = inv(project, ["explain", "no-such", "--profile=eu-1"])
    log = Path(re.search(r"log: (\S+)", err)[1])  # type: ignore[index]
    assert log.is_relative_to(project / "profiles" / "eu-1")
    assert "inv explain no-such --profile=eu-1\n" in log.read_text()
    assert "cure: inv --profile=eu-1 explain" in err


def test_what_is_per_registry_has_two_names() -> None:
    def names(one: settings.Settings) -> list[str]:
        return [
            *(one.registry.container, container.front_name(one), one.lab.prefix),
            *(one.kubernetes.secret, one.kubernetes.pod, one.kubernetes.agents_namespace),
            *map(str, (one.home, one.state, one.certs_dir, one.registry_data, one.file)),
            str(one.state / "registry" / "password"),
            str(engine.labels(one, "registry")),
            str(engine.label_filter(one)),
            *map(str, installing._units(installing.job_of(one))),
        ]

    two = [names(FRESH), names(OURS)]
    assert len({*two[0], *two[1]}) == len(two[0]) + len(two[1]), two


def test_a_name_of_the_settings_wins_over_that_of_the_profile() -> None:
    found = parse({"registry": {"container": "mine"}}, profile="eu-1")
    assert found.registry.container == "mine"


def test_a_timer_runs_the_profiles_upkeep() -> None:
    job = replace(installing.job_of(OURS), folder=Path("/srv/moorage"))
    assert 'exec ./run inv --profile=eu-1 upkeep"' in schedule.service(job)
    line = schedule.crontab("", job)
    assert "./run inv --profile=eu-1 upkeep >profiles/eu-1/.moorage/upkeep.out" in line
    assert schedule.has_job(line, job.name)
    assert not schedule.has_job(line, installing.job_of(FRESH).name)


def test_printed_commands_carry_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROFILE, "eu-1")
    text = "set registry.host in invoke.yaml, then inv up; or inv --profile=default up"
    assert typed(text) == (
        "set registry.host in invoke.eu-1.yaml, then inv --profile=eu-1 up; "
        "or inv --profile=default up"
    )
    assert typed_document({"next": ["inv down"]}) == {"next": ["inv --profile=eu-1 down"]}
    monkeypatch.setenv(VARIABLE, "./run inv")
    assert typed("inv up") == "./run inv --profile=eu-1 up"
    elsewhere = "cd /srv/other && ./run inv lab.down"
    assert typed(elsewhere) == elsewhere


def test_profiles_complete(tmp_path: Path) -> None:
    (tmp_path / "invoke.eu-1.yaml").write_text(EU)
    (tmp_path / "invoke.us.yml").write_text(EU)
    for refused in ("Not One", "front", "a-front", "cache-a", "a-cache-b"):
        (tmp_path / f"invoke.{refused}.yaml").write_text(EU)
    assert profiles.there(tmp_path) == ["eu-1", "us"]

    class There(settings.Settings):
        @property
        def root(self) -> Path:
            return tmp_path

    def found(*line: str) -> list[str]:
        return completion.candidates(tasks.namespace, line, There)

    assert found("=--profile=e") == ["--profile=eu-1"]
    assert found("=--profile=", "nodes.trust") == [
        "--profile=eu-1", "--profile=us", "--profile=default",
    ]  # fmt: skip
    assert found("=u", "--profile") == ["us"]
    assert "--profile=" in found("=--p", "nodes.trust")


def test_a_shell_completes_with_the_hosts_of_the_profile(project: Path) -> None:
    (project / "invoke.eu-1.yaml").write_text("nodes: {hosts: eu-node}\n")
    line = ["--complete", "--", "=--hosts=", "--profile=eu-1", "nodes.trust"]
    ((_, out, err),) = inv(project, line)
    assert out.split() == ["--hosts=eu-node"], err
    ((_, out, err),) = inv(project, ["--complete", "--", "=", "--profile"])
    assert out.split() == ["eu-1", "default"], err


def test_a_strangers_container_names_the_profile_it_belongs_to(tmp_path: Path) -> None:
    class Found:
        name = "moorage-registry"

        def __init__(self, project: Path) -> None:
            self.labels = {engine.LABEL_PROJECT: str(project)}

    (tmp_path / "run").write_text("")
    anothers: Any = Found(tmp_path / "profiles" / "eu-1")
    with pytest.raises(Refused) as caught:
        engine.refuse_stranger(FRESH, anothers, "registry.down", "registry.container")
    assert f"the profile eu-1 of the checkout in {tmp_path}" in caught.value.cause
    assert "./run inv --profile=eu-1 registry.down" in caught.value.cure
    defaults: Any = Found(FRESH.root)
    with pytest.raises(Refused) as caught:
        engine.refuse_stranger(OURS, defaults, "registry.down", "registry.container")
    assert caught.value.cure.startswith("inv --profile=default registry.down;")


@pytest.mark.parametrize(
    ("usual", "other", "place"),
    [
        ("registry: {data: /srv/images}\n", "registry: {data: /srv/images/}\n", "registry.data"),
        ("certs: {dir: /srv/keys}\n", "certs: {dir: /srv/../srv/keys}\n", "certs.dir"),
        ("", "certs: {dir: ../../certs}\n", "certs.dir"),
        ("", "registry: {container: moorage-registry}\n", "registry.container"),
        ("lab: {prefix: eu-1-lab}\n", "", "lab.prefix"),
        (BACKUP, BACKUP.replace("safe", "./safe/"), "upkeep.backup"),
        ("upkeep: {textfile: /m.prom}\n", "upkeep: {textfile: /m.prom}\n", "upkeep.textfile"),
    ],
)
def test_what_two_profiles_share_is_refused_for_both(
    project: Path, usual: str, other: str, place: str
) -> None:
    (project / "invoke.yaml").write_text(usual)
    (project / "invoke.eu-1.yaml").write_text(other)
    lines = (["config.show"], "default", "eu-1"), (["config.check"], "eu-1", "default")
    for words, profile, another in lines:
        ((code, out, err),) = inv(project, [*words, f"--profile={profile}", "--json"])
        error = json.loads(out)["error"]
        assert (code, error["code"]) == (2, "bad-setting"), err
        assert error["message"].startswith(f"invalid {place} in ")
        assert f"the profile {another} (" in error["cause"]


def test_what_counts_for_every_profile_is_shared_by_them(project: Path) -> None:
    """A data folder of the environment; a registry of somebody else's has none."""
    ((code, out, _),) = inv(project, ["config.show", "--json"], INVOKE_REGISTRY_DATA="/srv/images")
    assert (code, json.loads(out)["error"]["code"]) == (2, "bad-setting")
    (project / "invoke.eu-1.yaml").write_text("registry: {external: true, host: eu.io}\n")
    ((code, out, err),) = inv(project, ["config.show"], INVOKE_REGISTRY_DATA="/srv/images")
    assert code == 0, err


BROKEN = [
    "[", "3", "registry: 3\n", "registry: {data: 3}\n", "made: 2026-13-45", "x: !!int abc",
    "registry: &a {host: *a}", 'registry: {data: "~nobody9/x"}', b"\xff",
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_another_profiles_broken_file_stops_no_other(project: Path, text: str | bytes) -> None:
    content = text.encode() if isinstance(text, str) else text
    (project / "invoke.eu-1.yaml").write_bytes(content)
    ((code, _, err),) = inv(project, ["config.show"])
    assert code == 0, err


def test_a_folder_in_the_home_folder_is_one_for_all_profiles(project: Path) -> None:
    (project / "invoke.yaml").write_text("registry: {data: ~/images}\n")
    (project / "invoke.eu-1.yaml").write_text(f"registry: {{data: {project}/images}}\n")
    ((code, _, err),) = inv(project, ["config.show"])
    assert code == 2
    assert "registry.data" in err
