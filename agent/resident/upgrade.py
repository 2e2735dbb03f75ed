"""Another archive in the place of this one: checked, tried, and given up where it does not answer.

It has to be signed with the fleet CA's key, which is on the operator's machine and on no node: the
operator's certificate alone brings no program here. ``start.py`` counts the starts of a new
archive and goes back to the one before it, unless an operator has been answered meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import astuple
from pathlib import Path

from agent.node.disk import write_own
from agent.node.host import Host
from agent.resident.home import Home
from agent.wire.faults import AgentError
from agent.wire.report import Fault
from agent.wire.version import __version__, older

MAX_BYTES = 3 << 20
# A new archive that has answered no operator for so long gives itself up.
TRIAL_SECONDS = 90.0


def put(
    host: Host,
    home: Home,
    digest: str,
    signature: str,
    content: bytes,
    downgrade: str = "",
    statement: str = "",
) -> None:
    """Puts the archive in place for the next start. Raises AgentError with nothing changed.

    One of an earlier version than this agent only with ``downgrade``: the CA's signature of
    ``statement``, so that an archive recorded long ago brings no mended hole back.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise _refused("bad-digest", "the digest is no SHA-256 in hexadecimal")
    if hashlib.sha256(content).hexdigest() != digest:
        raise _refused("bad-digest", "the archive is not the one with this digest")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "archive.pyz")
        path.write_bytes(content)
        _check_signature(host, home, path, signature)
        version = version_of(path)
        if older(version, __version__):
            if not downgrade:
                raise AgentError(*astuple(newer(__version__, version)))
            meant = Path(folder, "statement")
            meant.write_text(statement, encoding="ascii")
            _check_signature(host, home, meant, downgrade)
    write_own(home.previous, home.archive.read_bytes(), 0o600)
    write_own(home.trial, b"0", 0o600)
    write_own(home.archive, content, 0o600)


def downgrade_statement(node: str, running: str, digest: str) -> str:
    """What is signed for an earlier archive: for this node, in the place of this very one."""
    return f"moorage downgrade of {node} from {running} to {digest}"


def confirm(home: Home) -> None:
    """An operator has been answered: the archive stays."""
    with contextlib.suppress(FileNotFoundError):
        home.trial.unlink()


def on_trial(home: Home) -> bool:
    return home.trial.exists()


def _check_signature(host: Host, home: Home, path: Path, signature: str) -> None:
    """ECDSA or RSA over SHA-256, by the key of the fleet CA that this node was adopted with."""
    try:
        raw = base64.b64decode(signature.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    folder = path.parent
    (folder / "signature").write_bytes(raw)
    openssl = host.outside(host.which("openssl") or "/usr/bin/openssl")
    key = host.run([openssl, "x509", "-in", str(home.authority), "-noout", "-pubkey"])
    (folder / "authority.pub").write_text(key.out, encoding="ascii")
    words = ["-verify", str(folder / "authority.pub"), "-signature", str(folder / "signature")]
    done = host.run([openssl, "dgst", "-sha256", *words, str(path)])
    if not raw or not key.ok or not done.ok:
        raise _refused("bad-signature", f"the {path.stem} is not signed by this fleet's CA")


def newer(own: str, theirs: str) -> Fault:
    """Why an operator of version ``theirs`` changes nothing by an agent of version ``own``."""
    return Fault(
        "agent-newer",
        f"the agent on this node is {own}, newer than the operator's {theirs}; nothing was changed",
        cause="the operator's folder is from before this agent, and knows nothing of what is new",
        cure="update that folder (git pull), or bring the agent back: "
        "inv nodes.upgrade --hosts=NODE --downgrade",
    )


def version_of(path: Path) -> str:
    """What an archive says it is, within seconds. Raises AgentError where it does not run here."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(path), "--version", "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
        about = json.loads(done.stdout)
        if about["name"] != "moorage-agent":
            raise ValueError("it is another program")
        return str(about["version"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as problem:
        raise _refused("bad-archive", f"the archive does not run here: {problem}") from None


def _refused(code: str, message: str) -> AgentError:
    return AgentError(
        code,
        f"{message}; the agent stays as it is",
        cause="it was cut short, spoilt, or is not from this fleet's operator",
        cure="inv nodes.upgrade sends the archive of the operator's folder",
    )
