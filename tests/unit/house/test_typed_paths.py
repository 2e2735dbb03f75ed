"""A command in a cure can be typed as it stands, whatever folder a checkout or a file is in."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moorage.errors import Refused
from moorage.files import private_folder
from moorage.fleet.report import logbook, trusting
from moorage.pki import chain
from moorage.registry import handed
from moorage.registry.caches import upstreams
from moorage.registry.logins import credentials, users
from moorage.rotation import kept
from moorage.settings import Settings
from tests.unit.elsewhere import project

ROOT = Path(__file__).parents[3]

# Each file of ours that a cure takes away, below the state, and who reads it.
SPOILT: dict[str, Callable[[Settings], object]] = {
    "rotation.json": kept.read,
    "registry/users.json": users.read,
    "registry/handed.json": handed.holders,
    "registry/password": credentials.ensure,
    "registry/caches/quay.io/upstream.json": upstreams.read,
    "rollouts/trusting.json": lambda one: trusting.standings(logbook.folder(one), "r"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_cure_takes_away_its_file_and_nothing_beside_it(tmp_path: Path, name: str) -> None:
    settings = project(tmp_path / "my registry")
    beside = tmp_path / "my"
    beside.mkdir()
    path = settings.state / name
    private_folder(path.parent)
    path.write_bytes(b"\xffspoilt")
    with pytest.raises(Refused) as problem:
        SPOILT[name](settings)
    command = re.search(r"\brm (-r )?('[^']*'|[^ ,;]*)", problem.value.cure)
    assert command is not None
    subprocess.run(["sh", "-c", command[0]], check=True, cwd=tmp_path)
    assert not path.exists()
    assert beside.exists()
    SPOILT[name](settings)


def test_a_key_with_a_passphrase_is_opened_by_its_cure(tmp_path: Path) -> None:
    folder = tmp_path / "my registry"
    folder.mkdir()
    key, crt = folder / "registry.key", folder / "registry.crt"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=x", "-passout",
             "pass:secret", "-keyout", str(key), "-out", str(crt)]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True)
    trouble = chain._of_the_key(crt, key, [])
    assert trouble is not None
    typed = trouble.cure.replace("pkey ", "pkey -passin pass:secret ")
    subprocess.run(["sh", "-c", typed], check=True)
    assert b"ENCRYPTED" not in key.read_bytes()


# What begins a command that takes paths; what comes before one as an option.
_COMMAND = re.compile(
    r"(?<![\w./-])(?:(?:rm|mv|cp|ls|cd|cat|sed|grep|touch|mkdir|rmdir|ln|vi)(?= )"
    r"|(?:chmod|chown|chattr|mount|openssl|ansible-inventory)(?= -)"
    r"|restic --repo|ssh -F|\S+ --config(?:-file)?(?= ))"
)
# Until where it goes: a sentence goes on behind these.
_END = re.compile(r"[;,()]| then | inv ")
# What is no path that anybody chose, by its file: a name of ours, a number, a constant.
FIT = {
    ("agent/engine/restarts.py", "folder"), ("agent/formats/plain.py", "number"),
    ("agent/formats/plain.py", "registry.url"), ("agent/formats/plain.py", "url"),
    ("agent/node/disk.py", "flags"), ("lab/kubernetes/worker.py", "_CONFIG"),
    ("lab/machines/containers.py", "name"), ("moorage/configuration/profiles.py", "file_of(name)"),
    ("moorage/registry/spec.py", "PORT"), ("moorage/tasks/lab.py", "first"),
    ("moorage/unforeseen.py", "os.geteuid()"),
    ("moorage/upkeep/schedule.py", "job.kept"), ("moorage/walk/tutorial.py", "folder"),
}  # fmt: skip


def unquoted(source: str) -> Iterator[tuple[int, str]]:
    """The lines, and what stands there in a command as it is."""
    module = ast.parse(source)
    quoted = set(_names_of_the_quoted(module))
    for node in ast.walk(module):
        if not isinstance(node, ast.JoinedStr):
            continue
        given = [one.value for one in node.values if isinstance(one, ast.FormattedValue)]
        text = "".join(
            str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values
        )
        for command in _COMMAND.finditer(text):
            end = _END.search(text, command.end())
            passed = text[command.end() : end.start() if end else len(text)].count("\0")
            first = text.count("\0", 0, command.end())
            for one in given[first : first + passed]:
                if not _is_quoted(one) and ast.unparse(one) not in quoted:
                    yield node.lineno, ast.unparse(one)


def _is_quoted(one: ast.expr) -> bool:
    return isinstance(one, ast.Call) and ast.unparse(one.func) in ("shlex.quote", "shlex.join")


def _names_of_the_quoted(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Assign):
            value = node.value.elt if isinstance(node.value, ast.GeneratorExp) else node.value
            if _is_quoted(value):
                yield from (
                    one.id for one in ast.walk(node.targets[0]) if isinstance(one, ast.Name)
                )


def test_no_command_holds_a_path_as_it_is() -> None:
    found = {
        (str(path.relative_to(ROOT)), one): line
        for top in ("agent", "moorage", "lab")
        for path in sorted((ROOT / top).rglob("*.py"))
        if "vendored" not in path.parts
        for line, one in unquoted(path.read_text())
    }
    assert {one: line for one, line in found.items() if one not in FIT} == {}
    assert FIT - set(found) == set(), "no longer there"


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("f'again: rm -r {path}'", ["path"]),
        ("f'rm {a}, then {b}'", ["a"]),
        ("f'{why}; mv {a} {b}'", ["a", "b"]),
        ("f'rm {shlex.quote(a)}'", []),
        ("a = shlex.quote(b)\nf'rm {a}'", []),
        ("a, c = (shlex.quote(x) for x in b)\nf'openssl pkey -in {a} && mv {c} {d}'", ["d"]),
        ("f'{a} --config {b} dump'", ["b"]),
        ("f'the form {a}'", []),
    ],
)
def test_a_path_as_it_is_in_a_command_is_seen(source: str, seen: list[str]) -> None:
    assert sorted({one for _, one in unquoted(source)}) == seen
