"""Why no answer comes from the API server: what urllib3 raised -> cause and cure. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from moorage.cluster.api.refusals import ApiError

if TYPE_CHECKING:
    from moorage.cluster.api.client import Where

# Words of urllib3, OpenSSL and the C library -> code, cause, cure. The first that fits is said.
_ROWS = (
    (
        r"certificate has expired|certificate is not yet valid",
        "server-certificate",
        "the API server's certificate has expired or is not yet valid",
        "check `date` here, else renew it on the control plane: kubeadm certs renew all",
    ),
    (
        r"Hostname mismatch|IP address mismatch|doesn't match|not valid for",
        "server-certificate",
        "the API server's certificate is for another name",
        "use a name the certificate has, or set tls-server-name in the kubeconfig",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "server-certificate",
        "its certificate is not of the CA in the kubeconfig",
        "fetch the kubeconfig of this cluster again",
    ),
    (
        r"CERTIFICATE_EXPIRED|alert certificate|BAD_CERTIFICATE|alert unknown ca",
        "client-certificate",
        "the API server does not accept the client certificate of this context",
        "renew the credentials, or fetch the kubeconfig again",
    ),
    (
        # OpenSSL's words for a certificate or key that it cannot load, or that do not fit.
        r"PEM lib|KEY_VALUES_MISMATCH|NO_START_LINE|BAD_BASE64_DECODE",
        "client-certificate",
        "the client certificate of this context, or its key, is missing or damaged",
        "fetch the kubeconfig again",
    ),
    (
        r"WRONG_VERSION_NUMBER|record layer failure|HTTP_REQUEST",
        "not-tls",
        "what listens there does not speak TLS",
        "check scheme and port of the server in the kubeconfig",
    ),
    (
        r"Name or service not known|No address associated|Temporary failure in name resolution"
        r"|NameResolutionError",
        "unreachable",
        "its name does not resolve",
        "check the server's name in the kubeconfig, and DNS (a VPN, perhaps)",
    ),
    (
        r"Connection refused",
        "unreachable",
        "nothing listens there",
        "start the cluster, or name another one with --context",
    ),
    (
        r"No route to host|Network is unreachable",
        "unreachable",
        "there is no route to it",
        "check the network (a VPN, perhaps), or name another cluster with --context",
    ),
    (
        r"Unable to connect to proxy|ProxyError|Tunnel connection failed",
        "unreachable",
        "the proxy from HTTPS_PROXY or the kubeconfig does not let us through",
        "add the server to NO_PROXY, or correct the proxy",
    ),
    (
        r"[Tt]imed? ?out|TimeoutError",
        "unreachable",
        "it did not answer in time",
        "check the network and firewalls in between, or name another cluster with --context",
    ),
)


def explain(problem: Exception, what: str, where: Where, *, answered: bool) -> ApiError:
    """``answered``: it has answered before, so that this may be a passing trouble."""
    words = f"{type(problem).__name__}: {problem}"
    for pattern, code, cause, cure in _ROWS:
        if re.search(pattern, words):
            if answered and code == "unreachable":
                break
            return ApiError(
                code,
                f"{what}: the API server {where.server} cannot be reached"
                if code == "unreachable"
                else f"{what}: no secure connection to {where.server}",
                cause=cause,
                cure=cure,
                words=words,
            )
    return ApiError(
        "connection-lost",
        f"{what}: the connection to {where.server} broke, also after several tries",
        cause=words[:300],
        cure="run it again; if it stays so, look at the API server and what is in between",
        words=words,
    )
