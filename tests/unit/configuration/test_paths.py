"""A leading ``~`` in each setting that is a path is a home folder, as in a shell."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from moorage import settings
from moorage.configuration import checking, parsing, schema
from moorage.configuration.origins import SettingSource
from moorage.configuration.paths import LISTS, PATHS
from moorage.errors import Refused
from tests.unit.elsewhere import checkout
from tests.unit.program.test_help import inv

# What a setting has beside it to be right, and how the value ends.
BESIDE: dict[str, dict[str, Any]] = {
    "registry.ca": {"registry": {"external": True}},
    "registry.client_cert": {"registry": {"external": True, "client_key": "k"}},
    "registry.client_key": {"registry": {"external": True, "client_cert": "c"}},
    "upkeep.backup": {"upkeep": {"passphrase_file": "p"}},
}


def tree(place: str, value: str) -> dict[str, Any]:
    section, _, key = place.partition(".")
    beside = BESIDE.get(place, {}).get(section, {})
    return {section: {**beside, key: value}}


def read(place: str, value: str) -> str:
    section, _, key = place.partition(".")
    return str(getattr(getattr(parsing.parse(tree(place, value)), section), key))


@pytest.mark.parametrize("place", sorted(PATHS | LISTS))
def test_a_tilde_is_the_home_folder(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert read(place, "~/a/x.prom") == "/home/ada/a/x.prom"
    assert read(place, "~root/x.prom") == "/root/x.prom"
    jsonschema.validate(tree(place, "~/a/x.prom"), schema.schema())


@pytest.mark.parametrize("place", sorted(PATHS | LISTS))
def test_a_home_of_nobodys_is_refused_by_the_key_that_names_it(place: str) -> None:
    with pytest.raises(Refused) as refused:
        read(place, "~nobody-of-ours/x.prom")
    assert refused.value.code == "no-home"
    assert f"{place} in invoke.yaml names it" in refused.value.cause
    assert "no user nobody-of-ours" in refused.value.cause


@pytest.mark.parametrize("name", ["~\0x", "~\ud800/x.prom"])
@pytest.mark.parametrize("place", sorted(PATHS | LISTS))
def test_a_name_that_no_user_can_have_is_refused(place: str, name: str) -> None:
    with pytest.raises(Refused) as refused:
        read(place, name)
    assert refused.value.code == "no-home"


def test_every_setting_that_is_a_path_is_known_as_one() -> None:
    meanings = tomllib.loads(Path(settings.__file__).with_name("meanings.toml").read_text())
    found = {
        f"{section}.{key}"
        for section, keys in meanings.items()
        for key, words in keys.items()
        if re.search(r"folder|\b[Ff]iles?\b|configuration;|data-root", words)
    }
    assert found == PATHS | LISTS


@pytest.mark.parametrize(
    ("place", "value", "becomes"),
    [
        ("kubernetes.kubeconfig", "~/a:b:~root/c", "/home/ada/a:b:/root/c"),
        ("registry.data", "data/~x", "data/~x"),
        ("upkeep.backup", "sftp:u@h:~/x", "sftp:u@h:~/x"),
        ("registry.container", "moorage", "moorage"),
    ],
)
def test_only_the_beginning_of_a_path_is_a_home(
    place: str, value: str, becomes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert read(place, value) == becomes


def test_a_home_of_nobodys_is_one_of_all_that_is_wrong() -> None:
    given = {"registry": {"data": "~nobody-of-ours/x", "port": 0}, "certs": {"dir": "~no-one/x"}}
    sources = (
        SettingSource("default", "", settings.defaults()),
        SettingSource("project", "x.yaml", given),
    )
    found = [problem.code for problem in checking.problems(sources, {})]
    assert sorted(found) == ["bad-setting", "no-home", "no-home"]


def test_keys_are_made_in_the_home_folder_and_no_folder_is_called_tilde(tmp_path: Path) -> None:
    home, project = tmp_path / "home", checkout(tmp_path / "project")
    home.mkdir()
    (project / "invoke.yaml").write_text("certs: {dir: ~/keys}\nregistry: {data: ~/images}\n")
    ((code, _, err),) = inv(project, ["certs.issue"], HOME=str(home))
    assert code == 0, err
    assert (home / "keys/ca.key").exists()
    assert not (project / "~").exists()
