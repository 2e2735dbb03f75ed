"""The node as a pod sees it, in the two grades; what the core asks of a ``Host`` is answered here.

*files*: the trust folders and the hosts file are mounted, the configuration can be read, nothing
can be run. *full*: the node's whole tree is mounted, and its own programs run inside it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.node.host import PATH, Done, Host, Unit

if TYPE_CHECKING:
    from agent.formats.proposal import Proof
    from agent.wire.plan import Plan, Registry, Verify

# A program of the node, run with the node's tree as its root. As an argument of our own Python,
# since not every image has chroot(1).
_ENTER = (
    "import os,sys; os.chroot(sys.argv[1]); os.chdir('/'); os.execvp(sys.argv[2], sys.argv[2:])"
)


class FilesHost(Host):
    """Runs nothing. ``runtime`` is what the kubelet told the API, as ``containerd://1.7.24``."""

    def __init__(self, root: str, runtime: str) -> None:
        super().__init__(root)
        kind, _, self._version = runtime.partition("://")
        self._program = {"containerd": "containerd", "docker": "dockerd"}.get(kind, "")

    def which(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program == self._program else None

    def unit(self, name: str) -> Unit | None:
        del name
        return None

    def run(self, argv: list[str], timeout: float = 20, *, brief: bool = False) -> Done:
        """What the runtime would answer, as far as its version and its own file tell."""
        del timeout, brief
        if argv[1:] == ["--version"]:
            return Done(0, f"{self._program} {self._version} ", "")
        if argv[-2:] == ["config", "dump"]:
            return self._dumped(argv[-3])
        return Done(127, "", "nothing can be run in the grade files")

    def _dumped(self, path: str) -> Done:
        try:
            text = Path(path).read_text("utf-8", "replace")
        except OSError as problem:
            return Done(1, "", str(problem))
        if re.search(r"^\s*imports\s*=", text, re.MULTILINE):
            return Done(1, "", "it imports other files; only containerd knows what comes of that")
        return Done(0, text, "")


class FullHost(Host):
    """The node itself: ``root`` is its whole tree, and its programs run inside it."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.real = True

    def outside(self, path: str) -> str:
        return path

    def which(self, program: str) -> str | None:
        for folder in PATH.split(":"):
            path = f"{folder}/{program}"
            if os.access(f"{self.root}{path}", os.X_OK):
                return path
        return None

    @property
    def systemd(self) -> bool:
        return Path(f"{self.root}/run/systemd/system").is_dir()

    def run(self, argv: list[str], timeout: float = 20, *, brief: bool = False) -> Done:
        prefix = f"{self.root}/"
        inside = [f"/{one[len(prefix) :]}" if one.startswith(prefix) else one for one in argv]
        # systemctl does nothing where it takes itself to be in a chroot of another system.
        os.environ["SYSTEMD_IGNORE_CHROOT"] = "1"
        entered = [sys.executable, "-I", "-c", _ENTER, self.root, *inside]
        return super().run(entered, timeout, brief=brief)


class PodProver:
    """The core's proofs from inside a pod: no name is looked up that the plan gives an address for.

    ``pulls``: the runtime's socket is mounted, so CRI can be asked and a pull made.
    """

    def __init__(self, root: str, pulls: bool) -> None:
        self._root = root
        self._pulls = pulls

    def ask_registry(self, plan: Plan, address: str | None = None) -> None:
        from agent.proof import verify

        # Pods do not read the node's hosts file.
        verify.ask_registry(plan, address or plan.registry.address)

    def cri_serves(self, socket_path: str) -> bool:
        from agent.proof import verify

        return not self._pulls or verify.cri_serves(self._outside(socket_path))

    def wait_for_cri(self, socket_path: str) -> None:
        from agent.proof import verify

        if self._pulls:
            verify.wait_for_cri(self._outside(socket_path))

    def pull(self, proof: Proof, registry: Registry, verify: Verify, seconds: float) -> None:
        from agent.proof import verify as proving

        if self._pulls and proof.kind == "cri":
            outside = proof._replace(socket=self._outside(proof.socket))
            proving.pull(outside, registry, verify, seconds)

    def trusts(self, proof: Proof, plan: Plan) -> None:
        """Not from here: :meth:`cannot` says so."""

    def cannot(self, proof: Proof) -> str:
        if not self._pulls:
            return "nothing but the trust folders is mounted here: the kubelet's own pull proves it"
        return "" if proof.kind == "cri" else "a pod has the kubelet's socket alone to prove it by"

    def _outside(self, path: str) -> str:
        return f"{self._root}{path}"
