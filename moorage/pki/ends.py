"""When certificates end: one judgement for `doctor`, `certs.show` and `registry.status`. Pure.

What cannot be asked is ``unknown``, never ``fine``.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moorage.pki.certificates import CertificateFacts

# A month is time enough for whoever has to ask another department for a certificate.
SOON = datetime.timedelta(days=30)


@dataclass(frozen=True)
class End:
    """One certificate. ``what``: ``registry's certificate, as served``; ``where``: a file or URL;
    ``at``: UTC, None if it is not known, for the reason ``why``."""

    what: str
    where: str
    at: datetime.datetime | None
    begins: datetime.datetime | None = None
    why: str = ""

    def state(self, now: datetime.datetime) -> str:
        """``fine``, ``soon`` (within 30 days), ``ended``, ``not-yet`` or ``unknown``."""
        if self.at is None:
            return "unknown"
        if self.begins is not None and self.begins > now:
            return "not-yet"
        if self.at <= now:
            return "ended"
        return "soon" if self.at < now + SOON else "fine"

    def words(self, now: datetime.datetime) -> str:
        """A sentence's second half: ``ends in 12 days (2027-01-02)``."""
        if self.at is None:
            return f"its end is not known: {self.why}"
        if self.begins is not None and self.begins > now:
            return f"is valid from {self.begins:%Y-%m-%d %H:%M} UTC on: is this clock right?"
        days = (self.at - now).days
        if self.at <= now:
            return f"ended on {self.at:%Y-%m-%d %H:%M} UTC"
        return f"ends in {days} days ({self.at:%Y-%m-%d})"

    def to_json(self, now: datetime.datetime) -> dict[str, Any]:
        """``ends`` is in ISO 8601, or null."""
        return {
            "what": self.what,
            "where": self.where,
            "ends": None if self.at is None else self.at.isoformat(),
            "state": self.state(now),
        }


def end(what: str, where: str, facts: CertificateFacts) -> End:
    """The end that a certificate's facts give."""
    return End(what, where, facts.not_after, facts.not_before)


def differs(served: CertificateFacts, on_disk: CertificateFacts) -> bool:
    """Whether the registry serves another certificate than its file holds."""
    return served.fingerprint != on_disk.fingerprint


def first(found: list[End]) -> End | None:
    """The one that ends first, of those whose end is known."""
    known = [(one.at, number) for number, one in enumerate(found) if one.at is not None]
    return found[min(known)[1]] if known else None
