"""TLS of this machine's own requests to the registry: the one place that makes it.

What is trusted is the registry's CA; a registry that asks its clients for a certificate is shown
that of the settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from moorage.settings import Settings


def context(
    settings: Settings, *, with_systems: bool = False, presenting: bool = True
) -> ssl.SSLContext:
    """``with_systems``: this machine's CAs too, as for a token server. ``presenting``: the
    settings' client certificate, which is nothing for a host that a registry sends us to.

    Raises Refused if the CA is missing, or the client's pair cannot be used.
    """
    from moorage.pki import chain
    from moorage.pki import registry as pki

    made = chain.client_context(pki.ca_pem(settings))
    if with_systems:
        made.load_default_certs()
    if presenting:
        present(settings, made)
    return made


def present(settings: Settings, made: ssl.SSLContext) -> None:
    """Have a context's connections show the client's certificate, if any. Raises Refused."""
    from moorage.registry.logins import client_pair

    pair = client_pair.read(settings)
    if pair is not None:
        pair.present(made)
