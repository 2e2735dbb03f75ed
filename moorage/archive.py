"""Builds ``agent.pyz``: the agent and its pure-Python wheels in one reproducible zip.

The same source and the same ``agent/requirements.lock`` give the same bytes, so nodes can be asked
by digest whether they have it. Built once per state of the source, then found by a key.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from moorage.errors import MoorageError
from moorage.files import private_folder, write_atomically

AGENT = Path(__file__).resolve().parent.parent / "agent"
LOCK = AGENT / "requirements.lock"
MAX_BYTES = 1 << 20
LAYOUT = 4  # part of the key: a change of how the archive is laid out makes it anew
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
from agent.bootstrap import run

sys.exit(run(archive))
"""

# Not needed on a node: what makes other files, and parts of wheels that nothing here imports.
SKIP = re.compile(
    r"agent/(regenerate\.py|cri/api\.proto)$"
    r"|.*\.(pyi|typed|proto|h|c|pyx|pxd|pxi|hash|so)$"
    # aiohttp's server is used below its routes and applications, and nothing of its client.
    r"|aiohttp/(\.hash/|client(?!_exceptions)|web_(?!exceptions|log|protocol|re|server))"
    r"|aiohttp/(connector|cookiejar|formdata|payload_streamer|pytest_plugin|resolver|test_utils"
    r"|tracing|web|worker)\.py"
    r"|google/_upb/|google/protobuf/(compiler|testdata|util)/"
    r"|grpclib/(plugin|reflection|health|channelz)/"
    r"|.*\.dist-info/(?!licenses/|LICENSE)"
)


@dataclass(frozen=True)
class AgentArchive:
    """The archive on this machine, and its bytes' SHA-256 in hexadecimal."""

    path: Path
    digest: str


def agent_archive(state: Path) -> AgentArchive:
    """The archive for the source as it stands, built if need be, kept in ``state/agent``.

    Raises MoorageError where the wheels cannot be had.
    """
    folder = private_folder(state / "agent")
    sources = _sources()
    pointer = folder / f"{_key(sources)}.key"
    if pointer.exists():
        digest = pointer.read_text("ascii").strip()
        path = folder / f"{digest}.pyz"
        if path.exists():
            return AgentArchive(path, digest)
    content = build(sources, _wheels(folder))
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{digest}.pyz"
    write_atomically(path, content)
    write_atomically(pointer, digest.encode("ascii"))
    return AgentArchive(path, digest)


def build(sources: dict[str, bytes], wheels: list[Path]) -> bytes:
    """The zip's bytes: sorted, without times, compressed as far as it goes."""
    members = {"__main__.py": MAIN.encode(), **sources}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as bundle:
            members.update(
                {name: bundle.read(name) for name in bundle.namelist() if not SKIP.match(name)}
            )
    members["agent/sbom.json"] = _sbom()
    # protobuf's wheel has no file here, and a zip without folder entries no namespace packages.
    members["google/__init__.py"] = b""
    # aiohttp's own loads its client and a set of the system's CAs: a third of a service's start.
    members["aiohttp/__init__.py"] = f'__version__ = "{_version("aiohttp")}"\n'.encode()
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(members):
            if name.endswith("/"):
                continue
            info = zipfile.ZipInfo(name, STAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            info.create_system = 3
            archive.writestr(info, members[name])
    content = target.getvalue()
    if len(content) > MAX_BYTES:
        raise AssertionError(f"agent.pyz has {len(content)} bytes; {MAX_BYTES} are promised")
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


def _wheels(folder: Path) -> list[Path]:
    """The locked wheels, fetched by pip once per state of the lock."""
    home = folder / f"wheels-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:24]}"
    wanted = _requirements()
    if not home.is_dir() or len(list(home.glob("*.whl"))) != len(wanted):
        private_folder(home)
        command = [
            *(sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"),
            *("--no-input", "--require-hashes", "--no-deps", "--only-binary", ":all:"),
            # The platform is aiohttp's alone; the hashes choose the pure wheel of all others.
            *("--platform", "any", "--platform", "manylinux2014_x86_64"),
            *("--implementation", "cp", "--abi", "cp39", "--abi", "none"),
            *("--python-version", "3.9", "-d", str(home), "-r", str(LOCK)),
        ]
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


def _sbom() -> bytes:
    """What the archive is made of, as a CycloneDX document without times or serial numbers."""
    components = [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for name, version, digest in _requirements()
    ]
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "components": components}
    return json.dumps(document, indent=1).encode()
