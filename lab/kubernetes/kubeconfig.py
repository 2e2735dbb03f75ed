"""Kubeconfig files: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/."""

from __future__ import annotations

import base64
import json

from lab.kubernetes.authority import Pair

# The API server's certificate is for this name. Its address may change when the engine restarts,
# and nothing has to be issued again then.
SERVER_NAME = "moorage-lab-control"
CONTEXT = "moorage-lab"


def render(*, server: str, ca: bytes, user: str, pair: Pair) -> str:
    """A kubeconfig for ``user`` at ``server`` (``https://ADDRESS:PORT``).

    Written as JSON, which is YAML too, so that nothing needs a YAML writer.
    """
    cluster = {
        "server": server,
        "tls-server-name": SERVER_NAME,
        "certificate-authority-data": _base64(ca),
    }
    login = {
        "client-certificate-data": _base64(pair.certificate),
        "client-key-data": _base64(pair.key),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": user, "user": login}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
        "current-context": CONTEXT,
    }
    return json.dumps(document, indent=2) + "\n"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
