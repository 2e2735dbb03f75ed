"""The node's half of the DaemonSet where there is no kubelet: its containers, run by ``ctr``.

They get just the mounts and rights of the manifest, and a stand-in for the API server; the pull is
CRI's own.
"""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage import archive
from moorage.cluster.agents import documents as made_of
from moorage.cluster.api import manifests, told
from moorage.registry import handed
from moorage.registry.logins import users
from tests.k8s import collect, standin
from tests.k8s.journey import Journey, NotHere
from tests.k8s.standin import Standin

WORK = "/run/moorage-nodehalf"
TAINT = {"key": "moorage.dev/untrusted", "effect": "NoSchedule"}
# What ctr gives a container unasked (containerd's oci.WithDefaultSpec).
DEFAULT_CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
]


@dataclass
class NodeHalf:
    """One node without a kubelet. ``server`` has its Node and the plan."""

    journey: Journey
    node: str
    grade: str
    server: Standin
    url: str
    pod: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/api/v1/nodes/{self.node}"

    @property
    def live(self) -> dict[str, Any]:
        return self.server.objects[self.path]

    def said(self) -> dict[str, Any]:
        """What the agent wrote onto its Node."""
        found = self.live["metadata"].get("annotations") or {}
        said: dict[str, Any] = json.loads(found.get("moorage.dev/agent") or "{}")
        return said

    def command(self, container: dict[str, Any], name: str, *, detached: bool) -> str:
        """``ctr run`` with the container's mounts and rights, and no others."""
        context = container["securityContext"]
        words = ["ctr -n moorage run", "-d" if detached else "--rm"]
        words.append(f"--user {context['runAsUser']}")
        words += ["--read-only"] if context["readOnlyRootFilesystem"] else []
        granted = context["capabilities"].get("add", [])
        words += [f"--cap-drop CAP_{one}" for one in DEFAULT_CAPABILITIES if one not in granted]
        if self.pod.get("hostPID"):
            words.append("--with-ns pid:/proc/1/ns/pid")
        words.append("--net-host")
        volumes = {one["name"]: one for one in self.pod["volumes"]}
        for mount in container["volumeMounts"]:
            source = self._source(volumes[mount["name"]])
            mode = "ro" if mount.get("readOnly") else "rw"
            words.append(
                f"--mount type=bind,src={source},dst={mount['mountPath']},options=rbind:{mode}"
            )
        account = "/var/run/secrets/kubernetes.io/serviceaccount"
        words.append(f"--mount type=bind,src={WORK}/account,dst={account},options=rbind:ro")
        host, _, port = self.url.removeprefix("https://").partition(":")
        environment = {
            "MOORAGE_GRADE": self.grade,
            "MOORAGE_PLAN": told.PLAN,
            "MOORAGE_NAMESPACE": "moorage-system",
            "MOORAGE_NODE": self.node,
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
        }
        words += [f"--env {key}={value}" for key, value in environment.items()]
        quoted = " ".join("'" + one.replace("'", "'\\''") + "'" for one in container["command"])
        return f"{' '.join(words)} {container['image']} {name} {quoted}"

    def _source(self, volume: dict[str, Any]) -> str:
        if "hostPath" in volume:
            return str(volume["hostPath"]["path"])
        return f"{WORK}/{volume['name']}"

    def pull(self) -> str:
        """The kubelet's call, with the Secret's login."""
        login = handed.made(self.journey.settings, [users.SECRETS])[users.SECRETS]
        image = self.journey.settings.image_reference
        self.journey.forget_image(self.node)
        ssh = collect.Node(self.node)
        ssh.run("cat > /tmp/moorage-collect.pyz", _archive(self.journey).read_bytes())
        words = f"python3 - {image} '{login.user}:{login.password}'"
        return ssh.run(words, collect.PULL.encode())


@contextmanager
def on(journey: Journey, grade: str) -> Iterator[NodeHalf]:
    """A node of the lab with containerd 2.x, prepared as a kubelet would."""
    node = _second_line(journey)
    plan = _plan(journey)
    version = journey.on_node(node, "containerd --version").split()[2].lstrip("v").split("+")[0]
    server = Standin()
    server.objects[f"/api/v1/nodes/{node}"] = {
        "metadata": {"name": node, "resourceVersion": "1"},
        "spec": {"taints": [TAINT]},
        "status": {"nodeInfo": {"containerRuntimeVersion": f"containerd://{version}"}},
    }
    secret = made_of.plan_secret(journey.settings, plan)
    secret["metadata"]["resourceVersion"] = "1"
    server.objects[f"/api/v1/namespaces/moorage-system/secrets/{told.PLAN}"] = secret
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        collect.certificates(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / "good.pem")
        with standin.serving(server, collect.BRIDGE, tls) as url:
            journey.alone()
            half = NodeHalf(journey, node, grade, server, url)
            half.pod = _pod(journey, grade)
            _prepare(half, folder / "ca.crt", plan)
            try:
                yield half
            finally:
                journey.on_node(
                    node,
                    "for c in $(ctr -n moorage containers ls -q); do"
                    " ctr -n moorage tasks rm -f $c; ctr -n moorage containers rm $c; done"
                    f" >/dev/null 2>&1; rm -rf {WORK} /tmp/moorage-collect.pyz",
                )
                # With a newer kubelet it is one of the cluster's.
                journey.trust(node)


def _second_line(journey: Journey) -> str:
    config = journey.project / ".moorage" / "lab" / "ssh_config"
    names = []
    if config.exists():
        names = [line.split()[1] for line in config.read_text().splitlines() if "Host " in line[:5]]
    for name in names:
        if journey.on_node(name, "containerd --version").split()[2].startswith(("2", "v2")):
            return name
    raise NotHere("the lab has no node with containerd 2")


def _plan(journey: Journey) -> bytes:
    from moorage.fleet.rollout import plans
    from moorage.fleet.rollout.operation import proof
    from moorage.pki import registry as pki

    settings = journey.settings
    plan = plans.make(
        settings, ca=pki.ca_pem(settings), address=collect.BRIDGE, verify=proof(settings, None)
    )
    return plans.wire(plan)


def _archive(journey: Journey) -> Path:
    return archive.agent_archive(journey.settings.state).path


def _pod(journey: Journey, grade: str) -> dict[str, Any]:
    folder = journey.project / "k8s" / "agents"
    document = manifests.documents(folder / f"{grade}.yaml")[0]
    wanted = made_of.Wanted(image="moorage.local/agent:1")
    runtimes = frozenset(("containerd",))
    fitted = made_of._fitted(document, journey.settings, "moorage-agent", wanted, runtimes)
    pod: dict[str, Any] = fitted["spec"]["template"]["spec"]
    return pod


def _prepare(half: NodeHalf, ca: Path, plan: bytes) -> None:
    """What the kubelet mounts: token, archive, plan, empty folders; and the image."""
    ssh = collect.Node(half.node)
    ssh.run(
        f"mkdir -p {WORK}/account {WORK}/agent {WORK}/plan {WORK}/unpacked {WORK}/tree {WORK}/proof"
    )
    ssh.run(f"cat > {WORK}/account/ca.crt; echo token > {WORK}/account/token", ca.read_bytes())
    ssh.run(f"cat > {WORK}/agent/agent.pyz", _archive(half.journey).read_bytes())
    ssh.run(f"cat > {WORK}/plan/plan.json; echo apply > {WORK}/plan/action", plan)
    for volume in half.pod["volumes"]:
        if volume.get("hostPath", {}).get("type") == "DirectoryOrCreate":
            ssh.run(f"mkdir -p {volume['hostPath']['path']}")
    image = half.journey.built()
    half.journey.inv("nodes.preload", image, f"--hosts={half.node}").want(0)
    # containerd may be at work on what the preload brought; that it failed once was seen.
    ssh.run(
        f"for _ in 1 2 3; do ctr -n moorage images ls -q | grep -qx {image} && exit;"
        f" ctr -n k8s.io images export {WORK}/image.tar {image} &&"
        f" ctr -n moorage images import {WORK}/image.tar && exit; sleep 1; done; exit 1"
    )
