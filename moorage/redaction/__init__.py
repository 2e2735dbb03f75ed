"""Secrets out of texts: those that are known, and whatever looks like one. Pure.

What is known is told by whoever reads it (:func:`keep_secret`); its Base64, JSON and URL forms go
too. What looks like one: private keys in PEM, bearer and JSON Web Tokens, HTTP logins, userinfo of
URLs, and values of keys such as ``password``.
"""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

HIDDEN = "[secret]"

# Names of keys, of variables and of options whose value is one.
_NAMES = (
    "(?:passw(?:or)?d|passphrase|secret|token|credential|auth"
    "|api[_-]?key|key-data|private[_-]?key)s?"
)
_VALUE = r"(?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;&}\]\"']+)"

_known: set[str] = set()
# RFC 7468; a text may end within one.
_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # RFC 7519: header and payload are Base64 of JSON objects.
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(\.[\w-]*)?"), HIDDEN),
    # RFC 9110, section 11.4, and RFC 6750.
    (re.compile(r"(?i)\b(basic|bearer|negotiate)\s+[\w.~+/=-]{6,}"), rf"\1 {HIDDEN}"),
    # RFC 3986, section 3.2.1.
    (re.compile(r"(?<=://)[^\s/@'\"]+@"), f"{HIDDEN}@"),
    # password=…, "auth": "…", client-key-data: …, SOME_TOKEN=…; and --password …
    (re.compile(rf"(?i)(\b[\w.-]*{_NAMES}[\"']?\s*[:=]\s*){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)((?<!\S)--?[\w-]*{_NAMES}\s+){_VALUE}"), rf"\1{HIDDEN}"),
)  # fmt: skip


def keep_secret(value: str) -> str:
    """Keeps ``value`` out of every text from now on, and returns it."""
    if value:
        _known.update(_forms(value))
    return value


def redacted(text: str) -> str:
    """``text`` without a secret in it."""
    text = _KEY.sub(HIDDEN, text)  # first: a short secret may be in the words around a key
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def _forms(value: str) -> set[str]:
    """How a value stands in files, documents and addresses."""
    raw = value.encode()
    in_base64 = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    # Within other bytes, as in user:password, Base64 has three phases; whole groups stay the same.
    shifted = {
        base64.b64encode(b"\0" * shift + raw).decode()[4:].rstrip("=")[:-1] for shift in (1, 2)
    }
    plain = {value, json.dumps(value)[1:-1], quote(value, safe="")}
    return plain | in_base64 | {form for form in shifted if len(form) >= 8}
