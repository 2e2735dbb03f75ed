"""The bundle of ``inv support``: versions, settings, logs and facts, without a secret in it.

What goes in is named here, file by file; nothing is taken because it lies around. Each text is
redacted, and the whole is looked through once more for every secret that this folder holds.
"""

from __future__ import annotations

import io
import json
import platform
import re
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from agent.wire.version import __version__
from moorage.errors import MoorageError
from moorage.files import private_folder, write_atomically
from moorage.redaction import keep_secret, redacted
from moorage.registry.logins import client_pair
from moorage.settings import Settings

# Files of this folder that are a secret as a whole, line by line.
_SECRET_FILES = (
    *("password", "http-secret", "logins/*", "*.login", "caches/*/login"),
    *("*.key", "*token*", "*.kubeconfig", "kubeconfig"),
)
_BASE64_LINE = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
_LONGEST = 1 << 20  # bytes of one file: its end tells more than its beginning


def write(settings: Settings, told: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """Writes the bundle (0600) and returns its path and what is in it.

    ``told``: documents by name, such as settings and findings. Raises MoorageError
    ``secret-in-bundle`` instead of writing a bundle with a secret in it, OSError.
    """
    secrets = known_secrets(settings)
    for value in secrets:
        keep_secret(value)
    texts = {f"{name}.json": _document(one) for name, one in {**_versions(), **told}.items()}
    texts |= dict(_logs(settings.state))
    safe = {name: redacted(text) for name, text in texts.items()}
    _refuse_secrets(safe, secrets)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    path = private_folder(settings.state / "support") / f"moorage-support-{stamp}.tar.gz"
    write_atomically(path, _packed(safe, path.name.partition(".")[0]))
    return path, sorted(safe)


def known_secrets(settings: Settings) -> list[str]:
    """What this folder's secret files and the client's key say, each line that gives one away."""
    found: set[str] = set()
    if client := client_pair.files(settings):
        found.update(_lines(client[1]))
    for folder in (settings.state, settings.certs_dir):
        for path in (path for pattern in _SECRET_FILES for path in folder.rglob(pattern)):
            found.update(_lines(path))
    return sorted(found)


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file() or path.stat().st_size > _LONGEST:
        return
    text = path.read_text(errors="replace")
    if path.name in ("password", "http-secret"):
        yield text.strip()
        return
    if path.suffix == ".login" or path.name == "login":  # user:password
        yield text.strip("\n").partition(":")[2]
        return
    yield from _BASE64_LINE.findall(text)


def _versions() -> dict[str, Any]:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    packages = {one.name: one.version for one in metadata.distributions() if one.name}
    return {
        "versions": {
            "moorage": __version__,
            "python": platform.python_version(),
            "system": release.get("PRETTY_NAME", platform.system()),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "packages": dict(sorted(packages.items())),
        }
    }


def _logs(state: Path) -> Iterator[tuple[str, str]]:
    for folder, pattern in (("log", "*.log"), ("rollouts", "*.jsonl"), ("engine", "*.log")):
        for path in sorted((state / folder).glob(pattern)):
            yield f"{folder}/{path.name}", path.read_bytes()[-_LONGEST:].decode(errors="replace")


def _document(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n"


def _refuse_secrets(texts: Mapping[str, str], secrets: Iterable[str]) -> None:
    for name, text in texts.items():
        if any(secret and secret in text for secret in secrets):
            raise MoorageError(
                "secret-in-bundle",
                f"no bundle was written: {name} still has a secret in it",
                cause="it holds a secret of this folder in an unknown form",
                cure="send the log files by hand, after a look at them: ls .moorage/log",
            )


def _packed(texts: Mapping[str, str], folder: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as bundle:
        for name, text in sorted(texts.items()):
            content = text.encode()
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
            bundle.addfile(member, io.BytesIO(content))
    return made.getvalue()
