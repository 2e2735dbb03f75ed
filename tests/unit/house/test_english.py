"""The English that a program can check: what users read, and the first lines of docstrings."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TREES = ("agent", "moorage", "lab", "tasks.py")
# Turns of phrase that are correct and foreign, each with what a native writes.
FOREIGN = {
    r"(?<![tT]here) is no (?!longer\b|more\b|such\b)\w": "is not a",
    r"\banew\b": "again",
    r"\bgone to\b": "contacted",
    r"\btakes us for\b": "sees this request as",
    r"\bmakes no \w+": "invalid X",
    r"\bis let win\b": "gives up",
    r"\b(one|an?) (\w+ )?(line|host|key|node|number|event) an? (line|host|minute|node)\b": "per",
    r"\b\w+ tells\b": "reports, returns, shows",
    r"\b(reads|speaks|knows|verifies) no (?!longer\b|more\b|file without)\w": "does not read",
    r"(?<!says )(?<!accepts )\bno more\b(?! than\b)": "no longer",
    r"\b(is|are|was|were) none of (this|the|these|your|ours|its|his)\b": "is not one of",
    r"\bnot \w+ any more\b": "no longer",
    r"\b(stands|stood) (there|here|beside|already|in|on its)\b(?! before)": "is there",
    r"\b(go|goes) by (it|them|this|the policy)\b": "depends on",
    r"\bcounts (for|nowhere)\b": "applies to",
    r"\balso (if|where|when)\b": "even if",
    r"\bshall\b": "is to, must",
    r"\blook (why|who|what)\b": "see why",
    r"\bis not right\b(?!: run)": "invalid X",
}
BEGINNINGS = re.compile(r"(If|That|Because|Since|While|Where (there|the end|a newer|no)) ")


@functools.cache
def texts() -> tuple[tuple[str, int, str, bool], ...]:
    """Each string of the product: file, line, text, and whether it is a docstring."""
    return tuple(_texts())


def _texts() -> Iterator[tuple[str, int, str, bool]]:
    for tree in TREES:
        for path in sorted((ROOT / tree).rglob("*.py")) or [ROOT / tree]:
            module = ast.parse(path.read_text(encoding="utf-8"))
            name = path.relative_to(ROOT).as_posix()
            docstrings = {id(one) for one in _docstrings(module)}
            for one in ast.walk(module):
                if isinstance(one, ast.Constant) and isinstance(one.value, str):
                    yield name, one.lineno, one.value, id(one) in docstrings


def _docstrings(module: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(module):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


@pytest.mark.parametrize("phrase", FOREIGN)
def test_what_users_read_is_plain(phrase: str) -> None:
    found = [
        f"{name}:{line}: {text[:80]!r}"
        for name, line, text, docstring in texts()
        if not docstring and re.search(phrase, text)
    ]
    assert not found, f"write {FOREIGN[phrase]!r}"


@pytest.mark.parametrize("phrase", FOREIGN)
def test_pages_and_explanations_are_plain(phrase: str) -> None:
    pages = [*ROOT.glob("docs/**/*.md"), ROOT / "README.md", *ROOT.glob("moorage/**/*.toml")]
    found = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.search(phrase, line)
    ]
    assert not found, f"write {FOREIGN[phrase]!r}"


def test_a_docstring_begins_with_a_verb_or_a_noun() -> None:
    found = [
        f"{name}:{line}: {text.splitlines()[0]}"
        for name, line, text, docstring in texts()
        if docstring and BEGINNINGS.match(text)
    ]
    assert not found


def test_titles_of_commits_have_at_most_60_characters() -> None:
    git = ["git", "-C", str(ROOT), "log", "--since=2026-11-28T16:00", "--format=%s"]
    told = subprocess.run(git, capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip("no history here")
    assert [title for title in told.stdout.splitlines() if len(title) > 60] == []
