"""Who is let in: TLS 1.3, a certificate of the fleet CA, and a role in it.

A role is a URI in the subject alternative name: ``urn:moorage:operator:<generation>``,
``urn:moorage:viewer`` or ``urn:moorage:node:<id>``. An operator's and a viewer's certificate have
the extended key usage clientAuth alone and a node's serverAuth alone, so OpenSSL itself refuses one
in the other's place; the role is a second lock. A certificate of a later generation ends all
earlier ones on each node that it meets. A viewer looks, at what :data:`VIEWS` has, and no further.
"""

from __future__ import annotations

import re
import ssl
from typing import Any

from agent.resident.home import Home
from agent.wire.verbs import VERBS

VIEWER = "urn:moorage:viewer"
# Method and path of all that a viewer may ask for.
VIEWS = frozenset(
    [("GET", "/healthz"), ("GET", "/metrics")]
    + [(verb.method, verb.path) for verb in VERBS if verb.viewer]
)
OPERATOR = re.compile(r"urn:moorage:operator:([1-9][0-9]{0,8})")


def context(home: Home) -> ssl.SSLContext:
    """The server's side. Raises OSError (ssl.SSLError among them) where a file is spoilt."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    # No session is resumed: each connection shows its certificate and is judged anew.
    made.num_tickets = 0
    made.options |= ssl.OP_NO_TICKET
    made.load_verify_locations(cafile=str(home.authority))
    made.load_cert_chain(str(home.certificate), str(home.key))
    made.set_alpn_protocols(["http/1.1"])
    return made


def operator_generation(certificate: dict[str, Any] | None) -> int:
    """The generation in an operator's certificate; 0 where it is nobody's who may command."""
    match = OPERATOR.fullmatch(_role(certificate))
    return int(match[1]) if match else 0


def is_viewer(certificate: dict[str, Any] | None) -> bool:
    """Whether the certificate opens :data:`VIEWS`, and nothing else."""
    return _role(certificate) == VIEWER


def _role(certificate: dict[str, Any] | None) -> str:
    """The one role in a certificate; "" if it has none, or several."""
    names = (certificate or {}).get("subjectAltName", ())
    roles = [value for kind, value in names if kind == "URI"]
    return str(roles[0]) if len(roles) == 1 else ""
