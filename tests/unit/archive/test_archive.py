"""agent.pyz: reproducible, small, complete."""

from __future__ import annotations

import hashlib
import json
import marshal
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from agent import bytecode
from agent.bytecode import MEMBER
from moorage import archive
from moorage.archive import AgentArchive, agent_archive, errand_archive, quick_archive


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def built(state: Path) -> AgentArchive:
    return agent_archive(state)


def test_the_digest_is_that_of_the_bytes(built: AgentArchive) -> None:
    content = built.path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == built.digest
    assert len(content) < archive.MAX_BYTES


def test_it_is_built_once(built: AgentArchive, state: Path) -> None:
    before = built.path.stat()
    assert agent_archive(state) == built
    assert built.path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_same_source_gives_the_same_bytes(built: AgentArchive, state: Path) -> None:
    built.path.unlink()
    assert agent_archive(state) == built
    assert built.path.exists()


def test_it_has_no_times_and_names_in_order(built: AgentArchive) -> None:
    with zipfile.ZipFile(built.path) as bundle:
        names = bundle.namelist()
        assert names == sorted(names)
        assert {one.date_time for one in bundle.infolist()} == {archive.STAMP}
        assert "agent/wire/plan.schema.json" in names
        assert not [name for name in names if name.startswith(("moorage/", "tests/"))]


def test_it_runs_alone_and_tells_what_is_in_it(built: AgentArchive, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", built.path, "--version", "--json"],
        capture_output=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    about = json.loads(done.stdout)
    names = {one["name"] for one in about["sbom"]["components"]}
    assert {"h2", "hpack", "hyperframe"} <= names


@pytest.mark.parametrize(("to", "code"), [("/dev/null", 0), ("/dev/full", 1), ("&-", 0)])
def test_its_end_tells_whether_it_was_heard(built: AgentArchive, to: str, code: int) -> None:
    words = f'exec "$0" -I -S "$1" --version >{to}'
    done = subprocess.run(
        ["/bin/sh", "-c", words, sys.executable, built.path], check=False, capture_output=True
    )
    assert (done.returncode, done.stderr) == (code, b"")


def test_its_modules_for_cri_import(built: AgentArchive, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(built.path)!r}); "
        "import agent.clients.cri_calls, agent.edit.toml"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=tmp_path)


def test_its_server_imports_and_brings_no_client_along(built: AgentArchive, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(built.path)!r}); "
        "import agent.server.serve, agent.resident.residence, agent.engine.engine;"
        "import agent.proof.verify; "
        "print([name for name in sys.modules if name.startswith('aiohttp.c')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], check=True, cwd=tmp_path, capture_output=True
    )
    assert (
        done.stdout.decode().strip() == "['aiohttp.client_exceptions', 'aiohttp.compression_utils']"
    )
    with zipfile.ZipFile(built.path) as bundle:
        assert "aiohttp/connector.py" not in bundle.namelist()


def test_the_quick_one_is_the_same_with_bytecode_that_this_python_takes(
    built: AgentArchive, state: Path, tmp_path: Path
) -> None:
    quick = quick_archive(state)
    assert quick_archive(state) == quick
    assert quick.path.stat().st_size < archive.MAX_QUICK_BYTES
    with zipfile.ZipFile(built.path) as bundle, zipfile.ZipFile(quick.path) as more:
        assert {name: more.read(name) for name in bundle.namelist()} == {
            name: bundle.read(name) for name in bundle.namelist()
        }
    modules = "agent.engine.engine, agent.clients.cri_calls, agent.runtimes.k3s, agent.server.serve"
    assert _not_from_bytecode(quick, modules, tmp_path) == []


def test_bytecode_has_lines_and_no_columns(state: Path) -> None:
    """A traceback tells the line; the columns beside it would be a fourth of what is sent."""
    archived = errand_archive(state)
    table = bytecode.read(str(archived.path))
    assert table is not None
    for name in ("agent.engine.engine", "h2.connection"):
        code = marshal.loads(zlib.decompress(table[name][1]))  # noqa: S302
        whole = compile(_source(archived, table[name][0]), code.co_filename, "exec")
        assert list(code.co_lines()) == list(whole.co_lines())
        assert {column for _, _, *columns in code.co_positions() for column in columns} == {None}


def _source(archived: AgentArchive, name: str) -> bytes:
    with zipfile.ZipFile(archived.path) as bundle:
        return bundle.read(name)


def _not_from_bytecode(quick: AgentArchive, modules: str, folder: Path) -> list[str]:
    """Those of the archive's modules that a run which imports ``modules`` gets from the source."""
    code = f"""
import json, sys, zipimport
archive = {str(quick.path)!r}
sys.path.insert(0, archive)
from agent import bootstrap, bytecode
bytecode.install(archive, bytecode.read(archive))
import {modules}
specs = [getattr(one, "__spec__", None) for one in list(sys.modules.values())]
slow = [one for one in specs if isinstance(getattr(one, "loader", None), zipimport.zipimporter)]
print(json.dumps([one.name for one in slow if not one.origin.endswith(".pyc")]))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True, text=True,
        cwd=folder,
    )  # fmt: skip
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_one_for_an_errand_does_all_of_it_without_a_server(state: Path, tmp_path: Path) -> None:
    errand = errand_archive(state)
    assert errand_archive(state) == errand
    modules = (
        "agent.engine.engine, agent.clients.cri_calls, agent.resident.residence,"
        "agent.proof.verify, agent.edit.toml"
    )
    assert _not_from_bytecode(errand, modules, tmp_path) == []
    with zipfile.ZipFile(errand.path) as bundle:
        components = json.loads(bundle.read("agent/sbom.json"))["components"]
        names = bundle.namelist()
    assert not [name for name in names if name.startswith(("aiohttp", "yarl", "attr"))]
    projects = {one["name"] for one in components}
    assert {"h2", "hpack", "hyperframe"} <= projects
    assert not projects & set(archive.SERVERS)


def test_bytecode_of_another_python_is_passed_over(
    built: AgentArchive, state: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(quick_archive(state).path) as bundle, zipfile.ZipFile(other, "w") as made:
        for name in bundle.namelist():
            content = bundle.read(name)
            if name.endswith(".pyc") or name == MEMBER:
                content = b"\x01\x02" + content[2:]
            made.writestr(name, content)
    done = subprocess.run(
        [sys.executable, "-I", "-S", other, "--version"], capture_output=True, check=True, text=True
    )
    assert done.stdout.startswith("moorage-agent ")
