"""skopeo as few verbs: it moves every byte. Logins and CAs go in as files, into no command line.

https://github.com/containers/skopeo/blob/main/docs/skopeo-copy.1.md
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from moorage import commands
from moorage.errors import MoorageError, Refused
from moorage.files import passing_folder, private_folder, user_path, write_atomically
from moorage.references import Reference
from moorage.registry.logins import client_pair

if TYPE_CHECKING:
    from moorage.actions import Action
    from moorage.registry.logins.credentials import Credentials
    from moorage.settings import Settings
    from moorage.ui import UI

PACKAGE = "skopeo"
# A layer may take long on a thin line; skopeo itself ends a connection that brings nothing.
_LONGEST = 24 * 3600.0
_RETRIES = 3


@dataclass(frozen=True)
class SkopeoAccess:
    """The files by which skopeo reaches registries; "" for what it finds by itself.

    ``authfile`` and ``certs`` are for our registry, ``sources`` has the logins of the others;
    ``folder`` (0700) is there as long as they are.
    """

    folder: str = ""
    authfile: str = ""
    certs: str = ""
    sources: str = ""

    @property
    def target_words(self) -> list[str]:
        return [
            *(["--dest-authfile", self.authfile] if self.authfile else ["--dest-no-creds"]),
            *(["--dest-cert-dir", self.certs] if self.certs else []),
        ]

    @property
    def source_words(self) -> list[str]:
        return ["--src-authfile", self.sources] if self.sources else []


def pending() -> list[Action]:
    """What :func:`ensure` would install. Raises Refused if there is no apt or no root."""
    from moorage.docker import apt

    return [] if shutil.which("skopeo") is not None else apt.pending([PACKAGE])


def ensure(ui: UI, settings: Settings, *, dry_run: bool = False) -> None:
    """Installs skopeo if it is missing, once that was agreed to; ``dry_run``: says so alone.

    Raises MoorageError with apt's own words, Refused if there is no apt, no root, or no agreement.
    """
    from moorage.docker import apt

    actions = [action.text for action in pending()]
    if not actions:
        return
    if dry_run:
        ui.note(f"would {'; '.join(actions)}: what only skopeo can see is left out")
        return
    ui.confirm(actions)
    apt.install([PACKAGE], ui.progress, settings)


def readable(authfile: str) -> str:
    """The file's whole path. Raises Refused (``no-credentials``)."""
    if not authfile:
        return ""
    path = user_path(authfile).resolve()
    try:
        path.open("rb").close()
    except OSError as problem:
        raise Refused(
            "no-credentials",
            f"{authfile} cannot be read",
            cause=problem.strerror or str(problem),
            cure="skopeo login --authfile=FILE REGISTRY writes such a file",
            path=authfile,
        ) from None
    return str(path)


@contextmanager
def access(
    settings: Settings, login: Credentials | None, sources: str = ""
) -> Iterator[SkopeoAccess]:
    """Login, CA and client's pair of our registry as files (0600) for the length of a block.

    ``sources``: a file with the logins of other registries, of containers-auth.json(5).
    """
    private_folder(settings.state)
    with passing_folder(settings.state / "images", "access-") as folder:
        authfile = certs = ""
        if login is not None:
            word = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
            document = {"auths": {settings.registry_name: {"auth": word}}}
            write_atomically(folder / "auth.json", json.dumps(document).encode())
            authfile = str(folder / "auth.json")
        if settings.ca_file.exists():
            from moorage.pki import registry as pki

            private_folder(folder / "certs")
            write_atomically(folder / "certs" / "ca.crt", pki.ca_pem(settings).encode())
            certs = str(folder / "certs")
            pair = client_pair.read(settings)
            if pair is not None:  # as containers-certs.d(5) has it
                write_atomically(folder / "certs" / "client.cert", pair.certificate.encode())
                write_atomically(folder / "certs" / "client.key", pair.key.encode())
        yield SkopeoAccess(str(folder), authfile, certs, sources)


def copy(
    source: str,
    target: Reference,
    allowed: SkopeoAccess,
    *,
    exactly: bool,
    stop: Event | None = None,
) -> None:
    """Copies what skopeo calls ``source`` to ``target`` in our registry.

    ``exactly``: every platform, and each digest as it is. ``stop``: ends the copy when it is set.
    Raises MoorageError with skopeo's words, explained.
    """
    argv = ["skopeo", "copy", "--quiet", "--retry-times", str(_RETRIES)]
    argv += ["--all", "--preserve-digests"] if exactly else []
    argv += [*allowed.source_words, *allowed.target_words, source, f"docker://{target.pinned}"]
    done = commands.run(argv, timeout=_LONGEST, check=False, stop=stop)
    if done.returncode:
        raise explain(
            _said(done.stderr), target.registry, f"copying {source.removeprefix('docker://')}"
        )


def fetch(source: Reference, folder: Path, allowed: SkopeoAccess, stop: Event) -> None:
    """Copies every platform of ``source`` into ``folder``, in skopeo's ``dir:`` layout.

    That layout alone keeps manifests of every kind as they are. ``stop`` ends the copy. Raises
    MoorageError with skopeo's words, explained.
    """
    argv = ["skopeo", "copy", "--quiet", "--retry-times", str(_RETRIES), "--all"]
    argv += ["--preserve-digests", *allowed.source_words]
    argv += [f"docker://{source.pinned}", f"dir:{folder}"]
    done = commands.run(argv, timeout=_LONGEST, check=False, stop=stop)
    if done.returncode:
        raise explain(_said(done.stderr), "", f"copying {source}")


def manifest(image: Reference, allowed: SkopeoAccess, *, config: bool = False) -> bytes:
    """The manifest of an image of another registry, or its configuration, as it is there.

    Raises MoorageError with skopeo's words, explained.
    """
    argv = ["skopeo", "inspect", "--raw", *(["--config"] if config else [])]
    argv += ["--retry-times", str(_RETRIES)]
    argv += ["--authfile", allowed.sources] if allowed.sources else []
    done = commands.run([*argv, f"docker://{image.pinned}"], check=False)
    if done.returncode:
        raise explain(_said(done.stderr), "", f"asking for {image}")
    return done.stdout


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class _SourceRow:
    code: str
    words: str
    message: str
    cause: str
    cure: str


_LOGIN_THERE = "log in there: skopeo login {host}; or name a file of logins: --authfile=FILE"
# What is said of our own registry is explained as of an engine (moorage.docker.engine_faults).
_ROWS = (
    _SourceRow(
        "digest-changed",
        r"[Dd]igest mismatch|does not match provided manifest digest"
        r"|[Dd]igest did not match|manifest digest .* does not match",
        "what {host} sent has another digest than it says",
        "the bytes were changed on the way, or are damaged there",
        "run this again; if it persists, tell whoever runs {host}, and take it from elsewhere",
    ),
    _SourceRow(
        "rate-limit",
        r"toomanyrequests|too many requests|\b429\b",
        "{host} accepts no more requests for now",
        "its limit for this login, or for this address without one, is reached",
        "wait, or " + _LOGIN_THERE + "; then run this again: it goes on from here",
    ),
    _SourceRow(
        "x509-unknown-authority",
        r"x509: ",
        "the certificate of {host} is not trusted here",
        "its CA is neither in this system's store nor in certs.d",
        "put its CA into /etc/containers/certs.d/{host}/ca.crt, then run this again",
    ),
    _SourceRow(
        "login-refused",
        r"unauthorized|authentication required|\b401\b|insufficient_scope|denied|invalid username",
        "{host} refuses the login, or wants one",
        "the login is wrong, none was given, or this user may not pull the image",
        _LOGIN_THERE,
    ),
    _SourceRow(
        "image-missing",
        r"manifest unknown|name unknown|repository name not known|\b404\b",
        "{host} has no such image",
        "the name or the tag is wrong, or it was deleted there",
        "correct the reference, or leave it out",
    ),
    _SourceRow(
        "name-unresolved",
        r"no such host|server misbehaving|Temporary failure in name resolution",
        "the name {host} does not resolve on this machine",
        "DNS does not know it, or there is no network",
        "correct the reference, or this machine's DNS: getent hosts {name}",
    ),
    _SourceRow(
        "registry-down",
        r"connection refused|no route to host|network is unreachable",
        "nothing answers at {host}",
        "the port is closed there, or no way leads to it",
        "curl -v https://{host}/v2/ shows what answers; then run this again",
    ),
    _SourceRow(
        "registry-timeout",
        r"i/o timeout|deadline exceeded|TLS handshake timeout|timed out",
        "{host} does not answer in time",
        "the connection was made or tried, and nothing came back",
        "run this again: it goes on from here",
    ),
)
_HOST = re.compile(r"(?:docker://|registry |https?://)([\w.-]+(?::\d+)?)")
_TARGET = r"writing (blob|manifest)|trying to reuse blob|[Uu]ploading|destination"


def _said(output: bytes) -> str:
    """What skopeo ended with, out of the line of its log."""
    words = commands.last_words(output, lines=1)
    found = re.search(r'level=fatal msg="((?:[^"\\]|\\.)*)"', words)
    return found[1].replace('\\"', '"').replace("\\n", " ").strip() if found else words


def explain(words: str, ours: str, what: str) -> MoorageError:
    """skopeo's words -> an error with a cause and a cure. Pure.

    ``ours``: the registry that is written to; ``what`` was tried.
    """
    from moorage.docker import engine_faults

    plain = words.strip()
    if re.search(r"no space left on device|[Dd]isk quota exceeded", plain):
        return MoorageError(
            "disk-full",
            f"{what} failed: the disk is full",
            cause=plain,
            cure="make room (df -h), or free the registry's: inv registry.collect; then run this "
            "again: it goes on from here",
        )
    if "cannot modify it" in plain and "preserve digests" in plain:
        return MoorageError(
            "copy-failed",
            f"{what} failed: this skopeo cannot keep that index as it is",
            cause="it drops what it does not know of an index's entries, as the artifactType of "
            f"signatures, which changes the digest: {plain}",
            cure="leave that tag out, or take a newer skopeo: 1.9 of Debian 12 drops it, 1.18 of "
            "Debian 13 keeps it",
        )
    hosts = _HOST.findall(plain)
    host = next((one for one in hosts if one != ours), ours)
    theirs = re.search(_ROWS[0].words, plain) or not ours
    if not theirs and (re.search(_TARGET, plain) or host == ours):
        return engine_faults.explain(plain, ours, what)
    for row in _ROWS:
        if re.search(row.words, plain):
            values = {"host": host or "the registry", "name": host.partition(":")[0]}
            return MoorageError(
                row.code,
                f"{what} failed: {row.message.format_map(values)}",
                cause=f"{row.cause.format_map(values)}: {plain}",
                cure=row.cure.format_map(values),
            )
    return MoorageError(
        "copy-failed", f"{what} failed", cause=plain, cure="run this again: it goes on from here"
    )


def require_name(settings: Settings) -> None:
    """Raises Refused (``name-unresolved``) if this machine does not know our registry's name."""
    import socket

    registry = settings.registry
    try:
        socket.getaddrinfo(registry.host, registry.port)
    except OSError:
        cure = "inv up adds it to this machine's hosts file; or add it there by hand"
        if registry.external:
            address = "ADDRESS" if registry.address == "auto" else registry.address
            cure = f"add it to this machine's hosts file: {address} {registry.host}"
        raise Refused(
            "name-unresolved",
            f"the name {registry.host} does not resolve on this machine",
            cause="skopeo reaches the registry by its name",
            cure=cure,
        ) from None
