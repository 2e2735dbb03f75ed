"""A registry of somebody else's, with token logins, and an empty checkout that is to trust it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import docker

from moorage.pki import certificates
from tests.agent.authority import Authority
from tests.distribution import PASSWORD, ROBOT, Served, TokenServer, serving
from tests.e2e.machine import ROOT
from tests.engine import bridge
from tests.images.upstream import fill
from tests.pulp.checkout import Checkout

NAME = "theirs.example.test"  # no DNS knows it
LAB = ROOT / ".moorage" / "lab"


class Theirs:
    """The registry and its token server, at this machine's address on the way to containers.

    ``public``: nobody needs a login.
    """

    def __init__(self, folder: Path, *, public: bool = False) -> None:
        self.folder, self._public = folder, public
        self.authority = Authority("somebody else", days=400)
        self.address = bridge(docker.from_env())
        self._stack = ExitStack()
        self.served: Served | None = None

    @property
    def port(self) -> int:
        assert self.served is not None
        return self.served.port

    @property
    def name(self) -> str:
        return f"{NAME}:{self.port}"

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of its CA."""
        (root,) = certificates.load_certificates(self.authority.pem.encode())
        return certificates.facts(root).fingerprint

    def serve(self, authority: Authority | None = None) -> None:
        """Serves; with another CA, if one is given, at the same port."""
        self._stack.close()
        self.authority = authority or self.authority
        tokens = TokenServer(self.authority, name=NAME, address=self.address, public=self._public)
        self._stack.enter_context(tokens.running())
        crt, key = self.authority.issue(NAME, days=400)
        pair = (crt + self.authority.pem.encode(), key)
        port = 0 if self.served is None else self.port
        self.served = self._stack.enter_context(serving(self.folder, pair, tokens, port=port))

    def close(self) -> None:
        self._stack.close()

    def checkout(
        self, folder: Path, ssh_config: Path = LAB / "ssh_config", image: str = "team/app"
    ) -> Checkout:
        """A checkout whose settings name it and that image, and whose nodes are the lab's."""
        settings = {
            "registry": {
                "host": NAME,
                "port": self.port,
                "external": True,
                "address": self.address,
            },
            "image": {"name": image, "tag": "1"},
            "nodes": {
                "ssh_config": str(ssh_config),
                "known_hosts": str(LAB / "known_hosts"),
                "resident": False,  # the lab's agents are its own checkout's
            },
        }
        return Checkout(folder, settings)


@contextmanager
def standing(
    folder: Path, filled: Callable[[Path], object], *, public: bool = False
) -> Iterator[Theirs]:
    """It serves what ``filled`` has put into its folder."""
    folder.mkdir()
    filled(folder)
    made = Theirs(folder, public=public)
    try:
        made.serve()
        yield made
    finally:
        made.close()


@contextmanager
def checkout(folder: Path) -> Iterator[tuple[Checkout, str]]:
    """The checkout, whose nodes are the lab's; and the SHA-256 of the registry's CA."""
    with standing(folder / "registry", lambda there: fill(there, {"team/app": 1})) as registry:
        yield registry.checkout(folder / "checkout"), registry.fingerprint


def trusted(there: Checkout, fingerprint: str, hosts: Sequence[str]) -> list[dict[str, Any]]:
    """The three commands; what the last one says of each host."""
    there.inv("registry.ca", "--fetch", f"--fingerprint={fingerprint}").want()
    there.inv("registry.login", "--credentials=-", stdin=f"{ROBOT}:{PASSWORD}\n").want()
    found = there.inv("nodes.trust", f"--hosts={','.join(hosts)}").want().document["hosts"]
    return list(found)
