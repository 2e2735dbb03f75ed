"""A verb is added by the recipe of docs/architecture.md: three files, and all faces have it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# File -> what is inserted before which words: the recipe, with a verb that nobody needs.
RECIPE = {
    "agent/wire/verbs.py": {
        ")  # fmt: skip\n\n\nclass Call": """\
    Verb("rehearse", "Count what a change would touch.", "rehearse", "rehearse",
         plan=True, changes=True, https=True),
""",
    },
    "agent/engine/engine.py": {
        "    # How an operation runs\n": '''\
    def rehearse(self, plan: Plan, dry_run: bool = False) -> Iterator[Event]:
        """Say what it is for."""
        return self._told(iter([NoteEvent(f"{plan.registry.name}, dry run: {dry_run}")]))

''',
    },
    "moorage/tasks/nodes.py": {
        "namespace = Collection(": '''\
@on_nodes(help={"dry_run": _CHANGE["dry_run"]}, in_waves=True)
def rehearse(run: Run, nodes: Nodes, dry_run: bool = False) -> dict[str, Any]:
    """Count what a change would touch.

    Example: inv nodes.rehearse --hosts=node1
    Example: inv nodes.rehearse --hosts=node1 --dry-run
    """
    return nodes.do(dry_run=dry_run)


''',
        "    verify,\n": "    rehearse,\n",
    },
}
# What drives it in the copy: a real agent's process, HTTPS with both certificates, a rollout.
FLEET = """
import json, sys
from pathlib import Path
from moorage.fleet.residents.residence import Residents
from moorage.fleet.rollout.fleet import Fleet
from moorage.fleet.rollout.operation import Wish
from moorage.ui import UI
from tests.adopted import adopted
with adopted(Path(sys.argv[1])) as folder:
    with Residents(folder.settings).line(folder.route) as line:
        document = line.ask("GET", "/v1/openapi.json")
    for dry_run in (True, False):
        fleet = Fleet(folder.settings, UI(as_lines=True))
        report = fleet.run("rehearse", [folder.target], Wish(dry_run=dry_run))
        print(json.dumps({"event": "report", "ok": report.ok, "dry_run": report.dry_run}))
    print(json.dumps({"event": "document", "route": document["paths"]["/v1/rehearse"]}))
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the verb in it."""
    copy = tmp_path_factory.mktemp("house")
    for name in ("agent", "moorage", "lab", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tasks.py", "invoke.yaml"):
        shutil.copy(ROOT / name, copy / name)
    for name, insertions in RECIPE.items():
        text = (copy / name).read_text()
        for before, added in insertions.items():
            assert text.count(before) == 1, (name, before)
            text = text.replace(before, added + before)
        (copy / name).write_text(text)
    return copy


def run(house: Path, *words: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *words],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=house,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_the_recipe_is_three_files() -> None:
    assert len(RECIPE) == 3


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_the_agents_command_line_has_it(
    house: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    plan = json.dumps({"version": 1, "registry": {"host": "my.registry.io", "port": 443}})
    said = run(house, "-m", "agent", "rehearse", *flags, "--root", str(tmp_path), stdin=plan)
    note, result = (one for one in events(said) if one["event"] != "alive")
    assert note["message"] == f"my.registry.io, dry run: {bool(flags)}"
    assert result["status"] == "unchanged"


def test_the_server_its_document_and_the_fleet_have_it(house: Path, tmp_path: Path) -> None:
    told = events(run(house, "-c", FLEET, str(tmp_path)))
    notes = [one["message"] for one in told if one["event"] == "note"]
    assert [str(note).partition(", ")[2] for note in notes] == ["dry run: True", "dry run: False"]
    reports = [one for one in told if one["event"] == "report"]
    assert [(one["ok"], one["dry_run"]) for one in reports] == [(True, True), (True, False)]
    route = next(one["route"] for one in told if one["event"] == "document")
    assert isinstance(route, dict)
    assert route["post"]["summary"] == "Count what a change would touch."
    assert "requestBody" in route["post"]
    assert [one["name"] for one in route["post"]["parameters"]] == ["dry_run", "Moorage-Operator"]


def test_users_have_it(house: Path) -> None:
    listed = run(house, "-m", "invoke", "--list")
    assert "nodes.rehearse" in listed
