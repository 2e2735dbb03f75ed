"""Settings seen from outside: where values come from, all that is wrong, what editors are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from moorage import settings
from moorage.configuration import checking, origins, parsing, schema
from moorage.configuration.origins import SettingSource
from moorage.errors import Refused
from tests.unit.elsewhere import checkout
from tests.unit.program.test_help import ROOT, inv

DEFAULTS = SettingSource("default", "", settings.defaults())


def project(
    values: dict[str, Any], name: str = "invoke.yaml", kind: str = "project"
) -> SettingSource:
    return SettingSource(kind, name, values)


def test_each_value_is_said_to_come_from_the_last_source_that_gives_it() -> None:
    sources = (
        DEFAULTS,
        project(
            {"registry": {"port": 1, "user": "a"}, "nodes": {"groups": {"web": "a", "db": "b"}}}
        ),
        SettingSource("environment", "", {"registry": {"port": 2, "host": "b.io"}}),
        project({"registry": {"port": 3}, "nodes": {"groups": {"web": "c"}}}, "x.yaml", "runtime"),
    )
    found = {one.place: (one.value, one.source) for one in origins.settings_in(sources)}
    assert found["registry.port"] == (3, "x.yaml")
    assert found["registry.user"] == ("a", "invoke.yaml")
    assert found["registry.host"] == ("b.io", "INVOKE_REGISTRY_HOST")
    assert found["registry.listen"] == ("0.0.0.0", "default")
    assert found["nodes.groups.web"] == ("c", "x.yaml")
    assert found["nodes.groups.db"] == ("b", "invoke.yaml")
    assert "nodes.groups" not in found


def test_no_groups_are_a_setting_too() -> None:
    found = {one.place: one.origin for one in origins.settings_in((DEFAULTS,))}
    assert found["nodes.groups"] == "default"
    assert len(found) == sum(map(len, settings.defaults().values()))


def test_all_that_is_wrong_is_named_and_each_with_its_source() -> None:
    sources = (
        DEFAULTS,
        project({"registry": {"prot": 1, "host": "A.io", "port": 5001}, "registri": {}}),
        SettingSource("environment", "", {"image": {"tag": "a b"}}),
        project({"lab": {"nodes": "9.9"}, "certs": {"days": 0}}, "x.yaml", "runtime"),
    )
    found = checking.problems(sources, {"INVOKE_IMAGE_TAGG": "1"})
    messages = [str(one) for one in found]
    for place, source in (
        ("registri", "invoke.yaml"), ("INVOKE_IMAGE_TAGG", "the environment"),
        ("registry.prot", "invoke.yaml"), ("registry.host", "invoke.yaml"),
        ("image.tag", "INVOKE_IMAGE_TAG"), ("lab.nodes", "x.yaml"), ("certs.days", "x.yaml"),
    ):  # fmt: skip
        assert [one for one in messages if place in one and source in one], (place, messages)
    assert len([one for one in messages if "metrics_port" in one]) == 1


def test_right_settings_have_no_problem() -> None:
    values = yaml.safe_load((ROOT / "invoke.yaml").read_text())
    assert checking.problems((DEFAULTS, project(values)), {"HOME": "/"}) == []


@pytest.mark.parametrize(
    ("files", "line", "variables", "expected"),
    [
        ({"x.yaml": "registry: {port: 0}"}, ["-f", "x.yaml"], {}, "registry.port in x.yaml"),
        ({"x.yaml": "registry: {prot: 1}"}, ["-f", "x.yaml"], {}, "registry.prot in x.yaml"),
        ({"x.yaml": "registri: {port: 1}"}, ["-f", "x.yaml"], {}, "registri in x.yaml"),
        ({"x.yaml": "registry: {"}, ["-f", "x.yaml"], {}, "x.yaml cannot be read"),
        ({"x.yaml": "registry: 5"}, ["-f", "x.yaml"], {}, "x.yaml cannot be read"),
        ({"x.yaml": "- a\n"}, ["-f", "x.yaml"], {}, "x.yaml cannot be read"),
        ({"x.yaml": "lab: {nodes: '9'}"}, ["-f", "x.yaml"], {}, "lab.nodes in x.yaml"),
        ({"x.toml": ""}, ["-f", "x.toml"], {}, "x.toml cannot be read"),
        ({}, ["-f", "gone.yaml"], {}, "gone.yaml cannot be read"),
        ({}, [], {"INVOKE_RUNTIME_CONFIG": "gone.yaml"}, "gone.yaml cannot be read"),
        # -f wins over the environment, which wins over the project's file.
        ({"x.yaml": "registry: {port: 0}"}, ["-f", "x.yaml"], {"INVOKE_REGISTRY_PORT": "5443"},
         "registry.port in x.yaml"),
        ({"invoke.yaml": "registry: {port: 0}"}, [], {}, "registry.port in invoke.yaml"),
        ({"invoke.yaml": "registry: {port: 1}"}, [], {"INVOKE_REGISTRY_PORT": "0"},
         "registry.port in INVOKE_REGISTRY_PORT"),
        # The settings of all of a user's projects: what is not ours there is none of our business.
        ({".invoke.yaml": "other: {}\nregistry: {prot: 1}"}, [], {},
         "registry.prot in .invoke.yaml"),
        ({".invoke.yaml": "registry: {"}, [], {}, ".invoke.yaml cannot be read"),
        ({}, [], {"INVOKE_NODES_GROUPS": "a"}, "INVOKE_NODES_GROUPS in the environment"),
    ],
)  # fmt: skip
def test_an_error_names_what_was_truly_read(
    tmp_path: Path, files: dict[str, str], line: list[str], variables: dict[str, str], expected: str
) -> None:
    folder = checkout(tmp_path)
    for name, text in files.items():
        (folder / name).write_text(text)
    lines = [[*line, "certs.show"], [*line, "config.check"]]
    for code, out, err in inv(folder, *lines, **variables):
        assert (code, out) == (2, ""), err
        assert expected in err
        assert "Traceback" not in err


def test_a_project_file_by_another_name_is_named_by_it(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    (folder / "invoke.yaml").rename(folder / "invoke.yml")
    (folder / "invoke.yml").write_text("registry: {port: 0}")
    [(code, _, err)] = inv(folder, ["certs.show"])
    assert code == 2
    assert "registry.port in invoke.yml" in err


@pytest.mark.parametrize("text", ["", "registry:\n", "registry:\n  # port: 1\nimage: {}\n"])
def test_a_section_without_keys_is_none(tmp_path: Path, text: str) -> None:
    folder = checkout(tmp_path)
    (folder / "invoke.yaml").write_text(text)
    [(code, out, err)] = inv(folder, ["config.check"])
    assert (code, err) == (0, "")
    assert "the settings are right" in out


def test_show_tells_values_files_and_sources(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    (folder / "x.yaml").write_text("registry: {port: 5443}\nnodes: {hosts: [a, b]}")
    line = ["-f", "x.yaml", "config.show", "--changed"]
    variables = {"INVOKE_CERTS_DAYS": "60"}
    (_, document, _), (_, shown, _) = inv(folder, [*line, "--json"], line, **variables)
    told = json.loads(document)
    assert told["files"] == ["invoke.yaml", "x.yaml"]
    assert {one["place"]: (one["value"], one["source"]) for one in told["settings"]} == {
        "registry.port": (5443, "x.yaml"),
        "nodes.hosts": (["a", "b"], "x.yaml"),
        "certs.days": (60, "INVOKE_CERTS_DAYS"),
    }
    assert "nodes.hosts" in shown
    assert "a,b" in shown


def test_the_file_names_its_schema() -> None:
    first = (ROOT / "invoke.yaml").read_text().splitlines()[0]
    path = ROOT / first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(path.read_text()) == schema.schema()


# Values of every kind, at every key: schema and parser have to judge each of them alike.
VALUES: tuple[Any, ...] = (
    *(None, True, 0, 1, 70000, -1, 1.5, "", " ", "a", "auto", "http", "A.io", "a b", "a.io"),
    *(["a"], [1], [], {"a": "b"}, {}, "/data", "data\0", "ec-p256", "rsa-4096", "0.0.0.0"),
    *("1.20.2", "1.20", "https://dl.k8s.io/release", "http://example.com", "a\nb", "x" * 200),
)  # fmt: skip
# Only the parser knows DNS names, addresses and the lab's grammar; the schema is wider there.
WIDER = frozenset(
    {
        *("registry.host", "registry.address", "registry.listen", "certs.names", "nodes.names"),
        *("lab.nodes", "kubernetes.namespaces", "kubernetes.agents_namespace", "nodes.groups"),
        *("certs.days", "certs.renew_before"),  # one must be less than the other
        *("registry.ca", "registry.client_cert", "registry.client_key"),  # registry.external's
        "upkeep.backup",  # goes with upkeep.passphrase_file
    }
)


@pytest.mark.parametrize("section", settings.defaults())
def test_the_schema_judges_as_the_parser_does(section: str) -> None:
    validator = jsonschema.Draft7Validator(schema.schema())
    for key in settings.defaults()[section]:
        for value in VALUES:
            tree = {section: {key: value}}
            by_schema, by_parser = validator.is_valid(tree), parses(tree)
            if f"{section}.{key}" in WIDER:
                assert by_schema or not by_parser, tree
            else:
                assert by_schema == by_parser, tree


def parses(tree: dict[str, Any]) -> bool:
    try:
        parsing.parse(tree)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    ("tree", "good"),
    [({"registry": None}, True), ({"run": {"pty": True}}, True), (None, True),
     ({"registri": {}}, False), ({"registry": {"prot": 1}}, False), ({"registry": 5}, False)],
)  # fmt: skip
def test_the_schema_knows_sections(tree: Any, good: bool) -> None:
    assert jsonschema.Draft7Validator(schema.schema()).is_valid(tree) == good
    jsonschema.Draft7Validator.check_schema(schema.schema())
