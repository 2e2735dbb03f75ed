"""Where a resident agent keeps its key, its certificate and its settings on the node.

/var/lib/moorage/resident/   0700
  settings.json              id, address and port, the end of the certificate
  agent.pyz, start.py        the archive it runs from, and what starts it
  settling                   adopted, and not served yet: since when (settling.py)
  previous.pyz, trial        after an upgrade: the archive before it, and how often it was tried
  key.pem, certificate.pem   the node's own; the key is made here and never leaves
  next-key.pem, next-certificate.pem    of a renewal under way
  authority.pem              the fleet CA that signs operators and nodes
  generation                 the newest operator's certificate seen: older ones are refused
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from agent.journal.ledger import Store
from agent.node.disk import write_own
from agent.wire.faults import AgentError


@dataclass(frozen=True)
class AgentSettings:
    """How this agent serves.

    ``id`` is in its certificate, which ends at ``until`` (seconds since 1970).
    """

    id: str
    listen: str
    port: int
    until: int

    @classmethod
    def parse(cls, document: bytes) -> AgentSettings:
        """Raises AgentError ``bad-settings`` for anything but what :meth:`to_bytes` writes."""
        try:
            data = json.loads(document)
            found = cls(**data)
            whole = all(isinstance(getattr(found, name), str) for name in _WORDS)
            if not (
                whole and type(found.port) is type(found.until) is int and 0 < found.port < 65536
            ):
                raise ValueError("a field of the wrong kind")
            if not re.fullmatch(r"[0-9a-f]{32}", found.id):
                raise ValueError("the id")
            if not re.fullmatch(r"[0-9a-fA-F.:]{2,45}", found.listen):
                raise ValueError("the address to listen on")
        except (ValueError, TypeError) as problem:
            raise AgentError(
                "bad-settings",
                f"the resident agent's settings cannot be used: {problem}",
                cause="they were changed from outside, or another version wrote them",
                cure="inv nodes.adopt writes them again",
            ) from None
        return found

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()


_WORDS = ("id", "listen")


@dataclass(frozen=True)
class Home:
    """The folder, and what is in it."""

    root: str = "/"

    @cached_property
    def folder(self) -> Path:
        return Store(self.root).folder / "resident"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def next_key(self) -> Path:
        return self.folder / "next-key.pem"

    @property
    def next_certificate(self) -> Path:
        return self.folder / "next-certificate.pem"

    @property
    def archive(self) -> Path:
        return self.folder / "agent.pyz"

    @property
    def previous(self) -> Path:
        return self.folder / "previous.pyz"

    @property
    def trial(self) -> Path:
        return self.folder / "trial"

    @property
    def settling(self) -> Path:
        return self.folder / "settling"

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def authority(self) -> Path:
        return self.folder / "authority.pem"

    def settings(self) -> AgentSettings | None:
        """None if no agent resides. Raises AgentError if its settings are spoilt."""
        try:
            content = (self.folder / "settings.json").read_bytes()
        except FileNotFoundError:
            return None
        return AgentSettings.parse(content)

    def write_settings(self, settings: AgentSettings) -> None:
        write_own(self.folder / "settings.json", settings.to_bytes(), 0o600)

    def generation(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / "generation").read_text("ascii"))
        return 0

    def raise_generation(self, number: int) -> None:
        write_own(self.folder / "generation", str(number).encode(), 0o600)
