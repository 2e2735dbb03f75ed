"""The documentation: generated pages are current, commands can be typed, the languages agree."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from moorage.settings import defaults
from tests.docs import links, reference
from tests.unit.program.test_help import NAMES, NAMESPACE, ROOT, parse

ENGLISH, CHINESE = ROOT / "docs", ROOT / "docs-zh"
PAGES = sorted([*ENGLISH.rglob("*.md"), *CHINESE.rglob("*.md")])
# What a page of ours may tell a reader to type beside Moorage's own commands.
PROGRAMS = frozenset(
    (
        *("apt-get", "cd", "cp", "chown", "docker", "export", "kubectl", "mkdir", "pip", "sed"),
        *("ssh", "sudo", "tar"),
    )
)
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def console(path: Path) -> list[str]:
    """The commands of a page's console blocks."""
    lines = [line for block in BLOCK.findall(path.read_text()) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_generated_pages_are_current() -> None:
    # A process of its own: Invoke hands out the help of options once.
    check = [sys.executable, "-m", "tests.docs", "--stale"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_found(tmp_path: Path) -> None:
    made = {tmp_path / "settings.md": reference.settings()}
    (tmp_path / "settings.md").write_text(reference.settings().replace("443", "444"))
    assert reference.stale(made) == list(made)


def test_every_setting_has_a_meaning_and_nothing_else_has() -> None:
    known = {section: set(keys) for section, keys in reference.meanings().items()}
    assert known == {section: set(keys) for section, keys in defaults().items()}


@pytest.mark.parametrize("language", [ENGLISH, CHINESE], ids=name_of)
def test_the_first_page_leads_to_every_how_to(language: Path) -> None:
    said = (language / "index.md").read_text()
    assert [path.name for path in language.glob("how-to/*.md") if path.name not in said] == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_command_of_a_page_can_be_typed(path: Path) -> None:
    for line in console(path):
        for command in line.split(" && "):
            words = shlex.split(command)
            if words[:2] == ["./run", "--bundle"]:
                del words[1:3]
            if words[0] != "./run":
                assert words[0] in PROGRAMS, command
            elif words[1] == "inv" and "--version" not in words:
                named = parse(shlex.join(words[1:]))
                assert named and set(named) <= set(NAMES), command


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_task_named_in_a_page_exists(path: Path) -> None:
    for name in re.findall(r"`inv ([a-z0-9]+\.[a-z-]+)", path.read_text()):
        assert name in NAMES or name in NAMESPACE.collections, name


def test_pages_have_commands() -> None:
    assert sum(len(console(path)) for path in PAGES) > 150


def test_a_wrong_command_in_a_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ ./run inv nodes.trust --no-such-option\n```\n")
    with pytest.raises(Exception, match="no-such-option"):
        test_every_command_of_a_page_can_be_typed(page)


@pytest.mark.parametrize("name", ["zensical.toml", "zensical.zh.toml"])
def test_every_page_is_in_the_navigation(name: str) -> None:
    project = tomllib.loads((ROOT / name).read_text())["project"]
    folder = ROOT / project["docs_dir"]
    listed = set(re.findall(r"[\w/-]+\.md", str(project["nav"])))
    assert listed == {str(path.relative_to(folder)) for path in folder.rglob("*.md")}


def test_the_tasks_stand_in_both_languages_with_the_same_commands() -> None:
    for page in (ENGLISH / "how-to").glob("*.md"):
        assert console(CHINESE / "how-to" / page.name) == console(page), page.name


def test_every_english_reference_page_is_introduced_in_chinese() -> None:
    introduced = {path.stem for path in (CHINESE / "reference").glob("*.md")}
    pages = {path.stem for path in (*ENGLISH.glob("*.md"), *(ENGLISH / "reference").glob("*.md"))}
    assert introduced == pages - {"index"}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_picture_of_a_page_is_there_with_words_and_small(path: Path) -> None:
    for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", path.read_text()):
        picture = path.parent / target
        assert words
        assert picture.stat().st_size < 250_000
        if picture.suffix == ".png":
            assert picture.read_bytes().startswith(b"\x89PNG")


def test_both_languages_have_screenshots_of_their_own() -> None:
    found = [{one.name: one.read_bytes() for one in (top / "pictures").glob("*.png")}
             for top in (ENGLISH, CHINESE)]  # fmt: skip
    assert found[0].keys() == found[1].keys() == {"page.png", "question.png"}
    assert not set(found[0].values()) & set(found[1].values())


def test_the_agent_is_no_proxy_in_chinese() -> None:
    for path in CHINESE.rglob("*.md"):
        for line in path.read_text().splitlines():
            assert "代理" not in line or "HTTP 代理" in line, f"{path.name}: {line}"


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="other.html#here"></a><a href="other.html#gone"></a><a href="gone.html"></a>'
        '<a href="https://example.com/"></a><a href="#top"></a><p id="top">'
    )
    (tmp_path / "other.html").write_text('<h1 id="here"></h1><img src="gone.svg">')
    assert links.dead(tmp_path) == [
        "index.html -> other.html#gone",
        "index.html -> gone.html",
        "other.html -> gone.svg",
    ]


PORTS = ("docs/security.md", "docs-zh/reference/security.md")


def ports_of(text: str) -> dict[str, str]:
    """Port by setting, of a page's table; what has no setting by its port."""
    rows = re.findall(r"^\| (\d+) \| `?([^|`]*)`? *\|", text, re.MULTILINE)
    return {setting.strip() or port: port for port, setting in rows}


@pytest.mark.parametrize("page", PORTS)
def test_all_ports_stand_in_one_table(page: str) -> None:
    from agent.daemonset import loop, scrape
    from lab.kubernetes import api
    from moorage.web import access

    settings = {
        f"{section}.{key}": str(value)
        for section, values in defaults().items()
        for key, value in values.items()
        if key == "port" or key.endswith("_port")
    }
    fixed = {str(port): str(port) for port in (loop.READY_PORT, scrape.PORT, api.PORT)}
    by_option = {"~/.ssh/config": "22", "inv web --listen": access.DEFAULT.rpartition(":")[2]}
    assert ports_of((ROOT / page).read_text()) == {**settings, **by_option, **fixed}
