"""Systems that write containerd's configuration themselves: refused, or told of.

Sources: bottlerocket.dev (settings, `pki`: /etc is made from them at boot), awslabs/amazon-eks-ami
(`nodeadm init` runs at every boot), kubernetes/kubernetes cluster/gce/gci (configure-helper.sh).
"""

from __future__ import annotations

import re

from agent.node.tree import Tree
from agent.wire.faults import RefusedError

# By the ID in os-release: what to do there instead.
IMMUTABLE = {
    "bottlerocket": "apiclient set pki.moorage.data=$(base64 -w0 ca.crt) pki.moorage.trusted=true",
}
# Programs whose presence tells that config.toml is written anew at boot.
GENERATORS = {
    "/usr/bin/nodeadm": "nodeadm (EKS)",
    "/home/kubernetes/bin/configure-helper.sh": "configure-helper.sh (GCE, GKE)",
}


def refuse_immutable(tree: Tree) -> None:
    """Raise RefusedError on a system that takes settings by its own way alone."""
    release = (tree.read("/etc/os-release").content or b"").decode("utf-8", "replace")
    found = re.search(r'^ID="?([a-z0-9._-]+)', release, re.MULTILINE)
    cure = IMMUTABLE.get(found[1]) if found else None
    if found and cure:
        raise RefusedError(
            "immutable-system",
            f"{found[1]} makes its files from its own settings at every boot",
            cause="what is written into /etc here does not last, or cannot be written",
            cure=cure,
        )


def generator(tree: Tree, path: str) -> str:
    """What to say where a program will write this file anew, or an empty string."""
    for program, name in GENERATORS.items():
        if tree.exists(program):
            return (
                f"{name} writes {path} again at boot: let the agent stay (without --once), "
                "so that it sets this up again"
            )
    return ""
