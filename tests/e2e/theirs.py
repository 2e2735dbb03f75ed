"""A registry of somebody else's, with token logins, and an empty checkout that is to trust it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from moorage.pki import certificates
from tests.agent.authority import Authority
from tests.distribution import TokenServer, serving
from tests.e2e.machine import ROOT
from tests.engine import bridge
from tests.images.upstream import fill
from tests.pulp.checkout import Checkout

NAME = "theirs.example.test"  # no DNS knows it


@contextmanager
def checkout(folder: Path) -> Iterator[tuple[Checkout, str]]:
    """The checkout, whose nodes are the lab's; and the SHA-256 of the registry's CA."""
    authority = Authority("somebody else")
    (root,) = certificates.load_certificates(authority.pem.encode())
    address = bridge(docker.from_env())
    tokens = TokenServer(authority, name=NAME, address=address)
    registry = folder / "registry"
    registry.mkdir()
    fill(registry, {"team/app": 1})
    crt, key = authority.issue(NAME)
    pair = (crt + authority.pem.encode(), key)
    lab = ROOT / ".moorage" / "lab"
    with tokens.running(), serving(registry, pair, tokens) as served:
        settings = {
            "registry": {"host": NAME, "port": served.port, "external": True, "address": address},
            "certs": {"renew_before": 5},
            "image": {"name": "team/app", "tag": "1"},
            "nodes": {
                "ssh_config": str(lab / "ssh_config"),
                "known_hosts": str(lab / "known_hosts"),
                "resident": False,  # the lab's agents are its own checkout's
            },
        }
        yield Checkout(folder / "checkout", settings), certificates.facts(root).fingerprint
