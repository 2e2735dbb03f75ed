"""Which SSH keys are offered to a node, in which order: its own files, the agent's, the usual ones.

A server counts tries (MaxAuthTries, 6), so what the configuration names comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramiko import PKey

    from moorage.fleet.ssh.routes import Route


@dataclass
class Offer:
    """The keys for one route, and what happened to those that could not be offered."""

    route: Route
    tried: list[str] = field(default_factory=list)
    locked: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    allowed: tuple[str, ...] = ()
    # A key was taken, and something else is wanted beside it.
    half_way: bool = False

    def authenticate(self, transport: Any) -> None:
        """Tries key after key; paramiko's AuthStrategy in all but name.

        Raises paramiko's AuthenticationException when none was taken, and SSHException or EOFError
        when the server had enough of it.
        """
        from paramiko import AuthenticationException, BadAuthenticationType

        seen: set[tuple[bytes, bool]] = set()
        for label, key in self._keys():
            what = key.asbytes(), getattr(key, "public_blob", None) is not None
            if what in seen:
                continue
            seen.add(what)
            self.tried.append(label)
            try:
                left = transport.auth_publickey(self.route.user, key)
            except BadAuthenticationType as refusal:
                self.allowed = tuple(refusal.allowed_types)
                raise
            except AuthenticationException:
                if not transport.is_active():  # the server closes after too many tries
                    raise
                continue
            if not left:
                return
            self.allowed, self.half_way = tuple(left), True
            raise AuthenticationException(f"more than a key is asked for: {', '.join(left)}")
        raise AuthenticationException("no key was taken")

    def _keys(self) -> Iterator[tuple[str, PKey]]:
        route = self.route
        if route.identities_given:
            yield from self._files()
        for key in _agent_keys(route.agent):
            if not route.identities_only or key.asbytes() in self._public_blobs():
                yield f"{key.comment or key.get_name()} (ssh-agent)", key
        if not route.identities_given:
            yield from self._files()

    def _files(self) -> Iterator[tuple[str, PKey]]:
        for path in self.route.identities:
            if not path.is_file():
                if self.route.identities_given:
                    self.unreadable.append((path, "there is no such file"))
                continue
            try:
                if (certified := self._certified(path)) is not None:
                    yield f"{path} with its certificate", certified
                look = path.stat()
                yield str(path), _key(path, look.st_ino, look.st_mtime_ns, look.st_size)
            except TypeError:  # cryptography's word for: this key is encrypted
                self.locked.append(path)
            except Exception as problem:  # whatever a damaged file makes the parsers say
                self.unreadable.append((path, _reason(problem)))

    def _certified(self, path: Path) -> PKey | None:
        """The key in ``path``, to be shown with the certificate that was issued for it, if any is.

        Those that CertificateFile names come first, then the one beside it, as ssh(1) has it.
        """
        import contextlib

        from paramiko import PKey

        for place in (*self.route.certificates, path.with_name(path.name + "-cert.pub")):
            with contextlib.suppress(OSError, ValueError):
                certificate = place.read_bytes()
                key = PKey.from_path(path)
                if _certified_blob(certificate) == key.asbytes():
                    key.load_certificate(str(place))
                    return key
        return None

    def _public_blobs(self) -> set[bytes]:
        import base64
        import contextlib

        blobs = set()
        for path in self.route.identities:
            public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
            with contextlib.suppress(OSError, ValueError, IndexError):
                blobs.add(base64.b64decode(public.read_text(encoding="utf-8").split()[1]))
        return blobs


@lru_cache(maxsize=16)
def _key(path: Path, *_look: int) -> PKey:
    """The key in a file, read once for each state of it: every host of thousands is offered it."""
    from paramiko import PKey

    return PKey.from_path(path)


def _certified_blob(certificate: bytes) -> bytes:
    """The public key in a certificate of OpenSSH's. Raises ValueError for anything else."""
    import base64

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import ssh

    found = ssh.load_ssh_public_identity(certificate)
    if not isinstance(found, ssh.SSHCertificate):
        raise ValueError("not a certificate")
    line = found.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return base64.b64decode(line.split()[1])


def _reason(problem: Exception) -> str:
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return " ".join(text.split())[:200] or type(problem).__name__


def _agent_keys(agent: str) -> tuple[Any, ...]:
    """The keys of the agent at that socket ("" for SSH_AUTH_SOCK); none where none answers."""
    import os
    import socket

    from paramiko.agent import AgentSSH
    from paramiko.ssh_exception import SSHException

    from agent.wire import unix_sockets

    place = agent or os.environ.get("SSH_AUTH_SOCK", "none")
    if place == "none":
        return ()
    client = AgentSSH()
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix_sockets.connect(connection, place, 10)
        client._connect(connection)
        # A key on a card waits for a touch, which takes a person longer than ten seconds.
        connection.settimeout(60)
    except (OSError, SSHException):
        return ()
    return tuple(client.get_keys())
