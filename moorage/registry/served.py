"""What the registry serves now, and when every certificate that this machine holds ends."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import Refused
from moorage.pki import ends
from moorage.pki.ends import End
from moorage.registry import tls
from moorage.registry.client import place
from moorage.registry.logins import client_pair, external

if TYPE_CHECKING:
    from moorage.pki.certificates import CertificateFacts
    from moorage.settings import Settings

LEAF, SERVED = "registry's certificate", "registry's certificate, as served"
CLIENT = "client's certificate"
# What is typed to have a new one; a certificate of another CA is put there by hand.
RENEWED_BY = {
    "CA": external.NEXT_CA,
    LEAF: "inv certs.renew; one made elsewhere: put its successor in its file first",
    SERVED: "inv certs.renew",
    CLIENT: "put the pair that follows it into the files of registry.client_cert and client_key, "
    "then inv nodes.trust",
    "fleet CA": "inv nodes.release, move certs/fleet away, then inv nodes.adopt",
    "operator's certificate": "inv nodes.status",
    "viewer's certificate": "inv monitoring.setup",
}
# The fleet's, below certs/: file -> what it is.
_FLEET = {
    "ca.crt": "fleet CA",
    "operator.crt": "operator's certificate",
    "viewer.crt": "viewer's certificate",
}


def certificate(settings: Settings, *, timeout: float = 5) -> CertificateFacts:
    """The leaf that the registry shows in a handshake, whoever vouches for it.

    ``timeout`` in seconds. Raises OSError if nothing answers there, or no TLS.
    """
    from moorage.pki import certificates, presented

    address, port = place(settings)
    shown = partial(tls.present, settings)
    chain = presented.chain(address, settings.registry.host, port, timeout, shown)
    return certificates.facts(chain[0])


def all_ends(settings: Settings) -> list[End]:
    """Every certificate that is here: the registry's, its CAs, what it serves, the fleet's."""
    found = kept_ends(settings)
    own = [one for one in found if one.what in ("CA", LEAF)]
    return [*own, *([served_end(settings)] if own else []), *found[len(own) :]]


def kept_ends(settings: Settings) -> list[End]:
    """Those of them that are files, the registry's CAs and its certificate first."""
    folder = settings.certs_dir
    found = [
        *_of_file("CA", settings.ca_file),
        *(() if settings.registry.external else _of_file(LEAF, folder / "registry.crt")[:1]),
    ]
    if client := client_pair.files(settings):
        found += _of_file(CLIENT, client[0])[:1]
    for name, what in _FLEET.items():
        found += _of_file(what, folder / "fleet" / name)[:1]
    return found


def served_end(settings: Settings) -> End:
    """The end of the leaf that is served now; unknown if nothing answers, or if the client's pair
    that it may ask for cannot be shown."""
    url = f"https://{settings.registry_name}"
    try:
        return ends.end(SERVED, url, certificate(settings))
    except Refused as problem:
        return End(SERVED, url, None, why=str(problem))
    except (OSError, ValueError) as problem:
        words = getattr(problem, "strerror", None) or str(problem)
        return End(SERVED, url, None, why=f"the registry does not answer: {words}")


def _of_file(what: str, path: Path) -> list[End]:
    """The ends of a file's certificates, in its order; none if there is no such file."""
    from moorage.pki import certificates

    try:
        loaded = certificates.load_certificates(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as problem:
        return [End(what, str(path), None, why=str(problem))]
    facts = [certificates.facts(one) for one in loaded]
    if len(facts) == 1:
        return [ends.end(what, str(path), facts[0])]
    return [ends.end(what, f"{path} ({one.subject})", one) for one in facts]
