"""An operator of an empty checkout, and what is around them: Pulp, another registry, a node."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from moorage.archive import agent_archive
from tests.images.upstream import Upstream
from tests.k8s import collect
from tests.pulp.checkout import Answer, Checkout
from tests.pulp.server import ADMIN, HOST, Pulp
from tests.resident.lab import ResidentNode

ROBOT, STRANGER = "robot+ci", "robot+other"
PASSWORD = "a:pass word"


class Operator:
    """``pulled``: how often the node's CRI has pulled."""

    def __init__(
        self, folder: Path, pulp: Pulp, there: Upstream, node: ResidentNode, address: str
    ) -> None:
        self.folder, self.pulp, self.there, self.node = folder, pulp, there, node
        self.address, self.pulled = address, 0
        nodes = node.settings.nodes
        settings = {
            "registry": {
                "host": f"https://{HOST}:{pulp.port}/",  # as a browser shows it
                "external": True,
                "address": address,
            },
            "certs": {"renew_before": 5},  # the tests' CAs end in 29 days
            "image": {"name": "team/app", "tag": "1"},
            "nodes": {
                "ssh_config": nodes.ssh_config,
                "known_hosts": nodes.known_hosts,
                "agent_port": nodes.agent_port,
                # A project that is there: who may push into it may not make others.
                "mirror_path": "team/{registry}",
            },
        }
        self.checkout = Checkout(folder / "checkout", settings)
        # No DNS knows the registry's name; a hosts file does, for the commands that need it.
        self._hosts = folder / "hosts"
        self._hosts.write_text(f"{Path('/etc/hosts').read_text()}\n{address} {HOST}\n")
        node.write("/root/pull.pyz", agent_archive(node.settings.state).path.read_bytes())
        words = collect.PULL.replace("/tmp/moorage-collect.pyz", "/root/pull.pyz")
        node.write("/root/pull.py", words.encode())

    def inv(self, *words: str, stdin: str = "", named: bool = False) -> Answer:
        """``inv WORDS --json`` in the checkout.

        ``named``: the registry's name leads to it from this machine too, as skopeo needs it.
        """
        return self.checkout.inv(*words, stdin=stdin, hosts=self._hosts if named else None)

    def skopeo(self, source: str, target: str) -> None:
        """The administrator's copy, without Moorage."""
        word = base64.b64encode(f"{ADMIN}:{self.pulp.password}".encode()).decode()
        authfile, certs = self.folder / "admin.json", self.folder / "admin-certs"
        authfile.touch(0o600)
        authfile.write_text(json.dumps({"auths": {self.pulp.name: {"auth": word}}}))
        certs.mkdir(exist_ok=True)
        (certs / "ca.crt").write_text(self.pulp.ca)
        argv = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests"]
        argv += ["--dest-authfile", str(authfile), "--dest-cert-dir", str(certs)]
        done = self.checkout.run([*argv, source, target], hosts=self._hosts)
        assert done.returncode == 0, done.stderr

    def pull(self, image: str, login: str = f"{ROBOT}:{PASSWORD}") -> str:
        """The kubelet's own call on the node: "pulled", or what the runtime says."""
        self.node.sh(f"ctr -n k8s.io images rm {image}")
        _, out, err = self.node.run('python3 /root/pull.py "$1" "$2"', image, login)
        said = (out + err).decode(errors="replace").strip()
        self.pulled += said == "pulled"
        return said
