"""Builds ``agent.pyz``: the agent and its pure-Python wheels in one reproducible zip.

The same source and the same ``agent/requirements.lock`` give the same bytes, so nodes can be asked
by digest whether they have it. Built once per state of the source, then found by a key.

What travels over SSH carries bytecode too, of the Python that runs here: a node with the same one
(measured: 0.7 s of its processor against 0.4 for a first apply) neither unpacks nor compiles. An
errand that leaves no agent behind carries nothing of what only a server needs.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import re
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from importlib.util import MAGIC_NUMBER, source_hash
from io import BytesIO
from pathlib import Path
from types import CodeType

from agent import bytecode
from moorage.errors import MoorageError
from moorage.files import private_folder, write_atomically

AGENT = Path(__file__).resolve().parents[2] / "agent"
LOCK = AGENT / "requirements.lock"
MAX_BYTES = 1 << 20
MAX_QUICK_BYTES = 3 << 20
LAYOUT = 6  # part of the key: a change of how the archive is laid out makes it anew
STAMP = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say

# Old syntax on purpose: a Python that is too old must be able to say so.
MAIN = """\
import os
import sys

if sys.version_info < (3, 9):
    print('{"event": "result", "host": "", "status": "failed", "changes": [], "restarts": [], '
          '"verified": null, "pull_seconds": null, "error": {"code": "python-too-old", '
          '"message": "this node has Python %d.%d; the agent needs 3.9", '
          '"cause": "its python3 is too old", '
          '"cure": "install a newer python3 on the node"}}' % sys.version_info[:2])
    sys.exit(2)

archive = os.path.dirname(os.path.abspath(__file__))
from agent.bootstrap import end, run

end(run(archive))
"""

# Not needed on a node: what makes other files, and parts of wheels that nothing here imports.
SKIP = re.compile(
    r"agent/wire/regenerate\.py$"
    r"|.*\.(pyi|typed|h|c|pyx|pxd|pxi|hash|so)$"
    # aiohttp's server is used below its routes and applications, and nothing of its client.
    r"|aiohttp/(\.hash/|client(?!_exceptions)|web_(?!exceptions|log|protocol|re|server))"
    r"|aiohttp/(connector|cookiejar|formdata|payload_streamer|pytest_plugin|resolver|test_utils"
    r"|tracing|web|worker)\.py"
    r"|.*\.dist-info/(?!licenses/|LICENSE)"
)
# pip's options for the wheels of LOCK.
CHOICE = (
    *("-qq", "--disable-pip-version-check", "--no-input", "--require-hashes", "--no-deps"),
    # The platform is aiohttp's alone; the hashes choose the pure wheel of all others.
    *("--only-binary", ":all:", "--platform", "any", "--platform", "manylinux2014_x86_64"),
    *("--implementation", "cp", "--abi", "cp39", "--abi", "none", "--python-version", "3.9"),
)
_PYTHON = f"-{sys.implementation.cache_tag}"
# The wheels that nothing but the server imports.
SERVERS = (
    *("aiohttp", "async-timeout", "attrs", "idna", "multidict", "propcache", "typing-extensions"),
    "yarl",
)
# What brings the rest: zipimport loads these, and their bytecode lies beside them.
FIRST = ("agent/__init__.py", "agent/bootstrap.py", "agent/bytecode.py")


@dataclass(frozen=True)
class AgentArchive:
    """The archive on this machine, and its bytes' SHA-256 in hexadecimal."""

    path: Path
    digest: str

    @cached_property
    def content(self) -> bytes:
        """Its bytes, read once for all hosts of a run."""
        return self.path.read_bytes()


def agent_archive(state: Path) -> AgentArchive:
    """The archive for the source as it stands, built if need be, kept in ``state/agent``.

    Raises MoorageError if the wheels cannot be had.
    """
    return _kept(state, "", lambda folder, sources: build(sources, _wheels(folder)))


def quick_archive(state: Path) -> AgentArchive:
    """The same with the bytecode of this Python beside the source: for nodes reached from here.

    Any Python from 3.9 on runs it; one of another version compiles the source as ever. Raises as
    :func:`agent_archive`.
    """
    return _kept(state, _PYTHON, lambda *_: with_bytecode(agent_archive(state).path))


def errand_archive(state: Path) -> AgentArchive:
    """The quick one without what only an agent that stays needs. Raises as the others."""

    def made(folder: Path, sources: dict[str, bytes]) -> bytes:
        import tempfile

        wheels = [wheel for wheel in _wheels(folder) if _project(wheel) not in SERVERS]
        with tempfile.TemporaryDirectory() as draft:
            portable = Path(draft, "agent.pyz")
            portable.write_bytes(build(sources, wheels))
            return with_bytecode(portable, serves=False)

    return _kept(state, f"-errand{_PYTHON}", made)


def _kept(state: Path, kind: str, make: Callable[[Path, dict[str, bytes]], bytes]) -> AgentArchive:
    """The archive of this ``kind`` and the source as it stands, made once.

    ``make`` gets the folder that archives and wheels are kept in, and the source.
    """
    folder, sources = private_folder(state / "agent"), _sources()
    pointer = folder / f"{_key(sources)}{kind}.key"
    if pointer.exists():
        digest = pointer.read_text("ascii").strip()
        path = folder / f"{digest}.pyz"
        if path.exists():
            return AgentArchive(path, digest)
    content = make(folder, sources)
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{digest}.pyz"
    write_atomically(path, content)
    write_atomically(pointer, digest.encode("ascii"))
    return AgentArchive(path, digest)


# Compiles what an agent ever loads, and its core's parts, which are loaded where a node needs them.
_COMPILED = """\
import marshal, re, sys, zipfile
sys.path[0] = archive = sys.argv[1]
import agent.clients.cri_calls, agent.engine.engine, agent.resident.residence, agent.proof.verify
if "serve" in sys.argv:
    import agent.server.serve
files = [getattr(one, "__file__", None) or "" for one in list(sys.modules.values())]
loaded = {file[len(archive) + 1:] for file in files if file.startswith(archive)}
core = re.compile(r"agent/(?!daemonset/|resident/|server/)")
with zipfile.ZipFile(archive) as bundle:
    names = [name for name in bundle.namelist() if name in loaded or core.match(name)]
    codes = {
        name: compile(bundle.read(name), name, "exec", dont_inherit=True)
        for name in names
        if name.endswith(".py")
    }
sys.stdout.buffer.write(marshal.dumps(codes))
"""
# Without the columns of each instruction, which only a traceback's carets need: a fourth of it.
_COMPILER = (sys.executable, "-I", "-S", "-X", "no_debug_ranges", "-c", _COMPILED)


def with_bytecode(portable: Path, *, serves: bool = True) -> bytes:
    """The archive's bytes with this Python's code of the modules that are loaded from it.

    ``serves``: those of an agent that stays too.
    """
    import zipfile

    command = [*_COMPILER, str(portable), *(["serve"] * serves)]
    done = subprocess.run(command, capture_output=True, check=True)
    codes: dict[str, CodeType] = marshal.loads(done.stdout)  # noqa: S302
    with zipfile.ZipFile(portable) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    members[bytecode.MEMBER] = bytecode.packed(
        {name: code for name, code in codes.items() if name not in FIRST}
    )
    for name in FIRST:
        # PEP 552: the magic number, the flags of an unchecked hash, the hash (not looked at). A
        # zip's times say nothing, and a pyc of another Python is passed over.
        head = MAGIC_NUMBER + (1).to_bytes(4, "little") + source_hash(members[name])
        members[f"{name}c"] = head + marshal.dumps(codes[name])
    return _zip(members, MAX_QUICK_BYTES)


def build(sources: dict[str, bytes], wheels: list[Path]) -> bytes:
    """The zip's bytes: sorted, without times, compressed as far as it goes."""
    import zipfile

    members = {"__main__.py": MAIN.encode(), **sources}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as bundle:
            members.update(
                {name: bundle.read(name) for name in bundle.namelist() if not SKIP.match(name)}
            )
    members["agent/sbom.json"] = _sbom({_project(wheel) for wheel in wheels})
    if "aiohttp/__init__.py" in members:
        # Its own loads its client and a set of the system's CAs: a third of a service's start.
        members["aiohttp/__init__.py"] = f'__version__ = "{_version("aiohttp")}"\n'.encode()
    return _zip(members, MAX_BYTES)


def _zip(members: dict[str, bytes], most: int) -> bytes:
    import zipfile

    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(members):
            if name.endswith("/"):
                continue
            info = zipfile.ZipInfo(name, STAMP)
            stored = name == bytecode.MEMBER  # it is compressed in itself
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            info.create_system = 3
            archive.writestr(info, members[name])
    content = target.getvalue()
    if len(content) > most:
        raise AssertionError(f"agent.pyz has {len(content)} bytes; {most} are promised")
    return content


def _sources() -> dict[str, bytes]:
    names = sorted(path for path in AGENT.rglob("*") if path.suffix in (".py", ".json"))
    found = {f"agent/{path.relative_to(AGENT).as_posix()}": path.read_bytes() for path in names}
    return {name: content for name, content in found.items() if not SKIP.match(name)}


def _key(sources: dict[str, bytes]) -> str:
    digest = hashlib.sha256(f"{LAYOUT} {MAIN} {SKIP.pattern}".encode())
    for name, content in [*sorted(sources.items()), ("lock", LOCK.read_bytes())]:
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:24]


def _requirements() -> list[tuple[str, str, str]]:
    """Name, version and SHA-256 of each wheel."""
    pattern = r"^([\w.-]+)==([\w.]+) \\\n\s+--hash=sha256:([0-9a-f]{64})$"
    return re.findall(pattern, LOCK.read_text("ascii"), re.MULTILINE)


def _version(of: str) -> str:
    return next(version for name, version, _ in _requirements() if name == of)


def _project(wheel: Path) -> str:
    """A wheel's project, as the lock spells it."""
    return wheel.name.partition("-")[0].replace("_", "-")


def _wheels(folder: Path) -> list[Path]:
    """The locked wheels, fetched by pip once per state of the lock."""
    from moorage.supply import loaded

    home = folder / f"wheels-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:24]}"
    wanted = _requirements()
    if not home.is_dir() or len(list(home.glob("*.whl"))) != len(wanted):
        private_folder(home)
        command = [sys.executable, "-m", "pip", "download", *loaded.pip_words(AGENT.parent, LOCK)]
        command += [*CHOICE, "-d", str(home), "-r", str(LOCK)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise MoorageError(
                "agent-wheels",
                "the agent's packages could not be fetched",
                cause=(lines or done.stderr.splitlines() or ["pip failed"])[-1],
                cure="check that pip reaches its package index, then run again",
                path=str(LOCK),
            )
    return sorted(home.glob("*.whl"))


def _sbom(projects: Collection[str]) -> bytes:
    """What an archive of these wheels is made of: CycloneDX, without times or serial numbers."""
    components = [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for name, version, digest in _requirements()
        if name in projects
    ]
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "components": components}
    return json.dumps(document, indent=1).encode()
