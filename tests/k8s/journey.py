"""What every step of the journey works with: ``inv`` itself, the cluster, and its nodes' shells."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from moorage.cluster.api import paths
from moorage.cluster.api.client import Api
from moorage.cluster.api.refusals import ApiError
from moorage.cluster.login import access, secrets
from moorage.errors import MoorageError
from moorage.settings import Settings

# Every namespace of the journey begins so; nothing else in the cluster is touched.
PREFIX = "moorage-journey"
# Where the nodes of the lab have their KubeletConfiguration.
KUBELET = "/etc/kubernetes/kubelet.json"


class NotHere(Exception):
    """A step that this cluster or machine cannot be made to show; says why."""


@dataclass
class Answer:
    """What one ``inv`` said: its exit code, its document, its words."""

    code: int
    document: dict[str, Any]
    words: str

    def want(self, code: int = 0) -> Answer:
        """Itself, where it ended with ``code``."""
        why = self.document.get("error") or self.document.get("causes")
        assert self.code == code, f"exit code {self.code}, not {code}: {why} {self.words[-1500:]}"
        return self

    @property
    def causes(self) -> dict[str, dict[str, Any]]:
        return {cause["code"]: cause for cause in self.document["causes"]}


@dataclass
class Journey:
    """One run. ``kubeconfig``: the cluster; ``ours``: it is the lab's."""

    settings: Settings
    kubeconfig: Path
    ours: bool
    agent_image: str = ""
    project: Path = field(default_factory=Path.cwd)
    # Agents in the grade files are left standing from one step to the next.
    agents_stand: bool = False
    # Whether the agents that stayed on the nodes are gone: see alone().
    released: bool = False

    # -- inv ----------------------------------------------------------------------------------

    def inv(self, *words: str, stdin: str = "", timeout: float = 500) -> Answer:
        """Runs ``inv … --json`` in the project's folder."""
        program = str(Path(sys.executable).with_name("inv"))
        done = subprocess.run(
            [program, *words, "--json"],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.project,
            timeout=timeout,
            check=False,
            env={**os.environ, **({"INVOKE_NODES_RESIDENT": "0"} if self.released else {})},
        )
        try:
            document = json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"no JSON from {words}: {done.stdout}{done.stderr}") from None
        return Answer(done.returncode, document, done.stderr)

    def k8s(self, task: str, *words: str, stdin: str = "") -> Answer:
        """``inv k8s.TASK`` on the journey's cluster."""
        return self.inv(f"k8s.{task}", *words, f"--kubeconfig={self.kubeconfig}", stdin=stdin)

    # -- the cluster --------------------------------------------------------------------------

    @cached_property
    def api(self) -> Api:
        return access.connect(self.settings, kubeconfig=str(self.kubeconfig))

    def nodes(self) -> list[str]:
        """Names of the nodes that pods may land on."""
        listed = self.api.items(paths.all_of("Node"))
        return [one["metadata"]["name"] for one in listed if not one["spec"].get("taints")]

    @contextmanager
    def namespace(self, word: str) -> Iterator[str]:
        """A fresh namespace, removed afterwards."""
        name = f"{PREFIX}-{word}"
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self._gone(name)
        self.api.apply(paths.one("Namespace", name), document, "make a namespace")
        try:
            self.until(lambda: self.find("ServiceAccount", name, "default"), "its ServiceAccount")
            yield name
        finally:
            with suppress(ApiError):
                self.api.delete(paths.one("Namespace", name), "delete a namespace")

    def _gone(self, name: str) -> None:
        self.api.delete(paths.one("Namespace", name), "delete a namespace")
        self.until(lambda: self.api.find(paths.one("Namespace", name)) is None, "it to be gone")

    def clean_up(self) -> None:
        """Removes the agents, and every namespace of an earlier journey that was stopped."""
        if self.agents_stand:
            self.k8s("agents", "--remove", "--yes")
            self.trust()
            self.agents_stand = False
        for one in list(self.api.items(paths.all_of("Namespace"))):
            if one["metadata"]["name"].startswith(PREFIX):
                self.api.delete(paths.one("Namespace", one["metadata"]["name"]), "delete")

    def alone_with_secrets(self) -> None:
        """Raises NotHere where Secrets of ours that are not the journey's would be changed too."""
        if self.ours:
            return
        places = secrets.every_one_of_ours(self.api, self.settings)
        others = [str(one) for one in places if not one.namespace.startswith(PREFIX)]
        if others:
            raise NotHere(f"{', '.join(others)} would be renewed too")

    def find(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self.api.find(paths.one(kind, name, namespace))

    def since(self, minor: int, what: str) -> None:
        """Raises NotHere for a cluster older than 1.``minor``, which brought ``what``."""
        said = self.api.get("/version")
        if int("".join(filter(str.isdigit, str(said["minor"])))) < minor:
            raise NotHere(f"{what}: Kubernetes 1.{minor} has it, this is {said['gitVersion']}")

    def foreign(
        self, namespace: str, image: str, *, secret: str = "", node: str = "", **spec_of: Any
    ) -> None:
        """A workload that is not ours, such as any user has: a pod on every node, or on one.

        ``spec_of``: what else its pods' spec says.
        """
        labels = {"app": "foreign"}
        spec: dict[str, Any] = {
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "Always"}],
            "terminationGracePeriodSeconds": 1,
            **spec_of,
        }
        if secret:
            spec["imagePullSecrets"] = [{"name": secret}]
        if node:
            spec["nodeSelector"] = {"kubernetes.io/hostname": node}
        document = {
            "apiVersion": "apps/v1",
            "kind": "Deployment" if node else "DaemonSet",
            "metadata": {"name": "foreign", "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
        self.api.apply(paths.of(document), document, "make a workload")

    def secret(self, namespace: str, name: str, server: str, user: str, password: str) -> None:
        """A pull Secret that is not ours, as kubectl would make it."""
        auths = {"auths": {server: {"username": user, "password": password}}}
        document = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json.dumps(auths)},
        }
        self.api.apply(paths.of(document), document, "make a Secret")

    def diagnosed(self, namespace: str, code: str, *nodes: str, seconds: float = 180) -> Answer:
        """The diagnosis of a namespace, once these nodes (all) have the cause that is waited for.

        The lab's nodes have a containerd of each line that its kubelet can speak to.
        """
        wanted = sorted(nodes or self.nodes())
        last: list[Answer] = []

        def look() -> bool:
            last[:] = [self.k8s("diagnose", f"--namespace={namespace}")]
            found = [one for one in last[0].document["causes"] if one["code"] == code]
            return sorted({node for one in found for node in one["nodes"]}) == wanted

        try:
            self.until(look, f"the cause {code} on {', '.join(wanted)}", seconds)
        except AssertionError as problem:
            said = [
                (one["code"], one["nodes"], one["evidence"]) for one in last[0].document["causes"]
            ]
            raise AssertionError(f"{problem}; it said {said}") from None
        return last[0].want(1)

    def fixed(self, namespace: str, *words: str) -> Answer:
        """``--fix``, after which nothing there is stuck any more."""
        fix = (f"--namespace={namespace}", "--fix", "--yes", *words)
        answer = self.k8s("diagnose", *fix).want(0)
        assert answer.document["causes"] == []
        self.running(namespace)
        return answer

    def running(self, namespace: str, seconds: float = 180) -> list[dict[str, Any]]:
        """The namespace's pods, once all of them run and are ready."""

        def look() -> list[dict[str, Any]]:
            pods = list(self.api.items(paths.all_of("Pod", namespace)))
            alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
            return alive if alive and all(map(_is_ready, alive)) else []

        return list(self.until(look, "pods that run", seconds))

    def until(self, look: Callable[[], Any], what: str, seconds: float = 120) -> Any:
        """The first true answer of ``look``."""
        deadline = time.monotonic() + seconds
        while True:
            found = look()
            if found:
                return found
            assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s"
            time.sleep(0.5)

    # -- the nodes ----------------------------------------------------------------------------

    def alone(self) -> None:
        """No agent on the nodes puts back what a step takes away; from here on none stays there."""
        if self.ours and not self.released:
            self.inv("nodes.release").want(0)
            self.released = True

    def by_hand(self, node: str, words: str) -> str:
        """A change on a node that is to stay as it is made."""
        self.alone()
        return self.on_node(node, words)

    def on_node(self, node: str, words: str) -> str:
        """A shell command on a node of the lab."""
        config = self.project / ".moorage" / "lab" / "ssh_config"
        if not self.ours or not config.exists():
            raise NotHere("it takes a shell on the cluster's nodes, and these are not the lab's")
        try:
            done = subprocess.run(
                ["ssh", "-F", str(config), node, words],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stdout or b"") + (late.stderr or b"")
            shown = said.decode(errors="replace")[-2000:]
            raise AssertionError(f"{node}: {words}: not within 60 s; it said {shown}") from None
        assert done.returncode == 0, f"{node}: {words}: {done.stderr}"
        return done.stdout

    def forget_image(self, node: str) -> None:
        """Takes the demo image off a node, so that a pull is a pull."""
        with suppress(AssertionError):
            self.on_node(node, f"ctr -n k8s.io images rm {self.settings.image_reference}")

    def trust(self, *nodes: str) -> None:
        """Trust on these nodes, or on all."""
        hosts = ",".join(nodes or self.nodes())
        if not self.ours:
            raise NotHere("trust is set up by SSH, and these nodes are not the lab's")
        self.inv("nodes.trust", f"--hosts={hosts}", "--no-verify").want(3)

    def wipe(self, node: str) -> None:
        """A node as one that has just joined: its runtime reads a config_path, and that is all."""
        name, host = self.settings.registry_name, self.settings.registry.host
        self.by_hand(
            node,
            f"rm -rf /etc/containerd/certs.d/{name} /etc/docker/certs.d/{name}"
            " /var/lib/moorage/active /var/lib/moorage/blobs /var/lib/moorage/history"
            f" /var/lib/moorage/lock; sed '/ {host} /d' /etc/hosts > /tmp/h;"
            " cat /tmp/h > /etc/hosts",
        )

    @contextmanager
    def kubelet(self, node: str, **keys: Any) -> Iterator[None]:
        """A node whose kubelet is configured otherwise, and as it was again at the end."""
        before = self.on_node(node, f"cat {KUBELET}")
        try:
            self.kubelet_says(node, **keys)
            yield
        finally:
            self._configure(node, before)

    def kubelet_says(self, node: str, **keys: Any) -> None:
        """Sets keys of a node's KubeletConfiguration, and restarts its kubelet by hand."""
        self._configure(
            node, json.dumps({**json.loads(self.on_node(node, f"cat {KUBELET}")), **keys})
        )

    def _configure(self, node: str, text: str) -> None:
        encoded = base64.b64encode(text.encode()).decode()
        self.by_hand(node, f"echo {encoded} | base64 -d > {KUBELET}; systemctl restart kubelet")

    def without_config_path(self, node: str) -> None:
        """A node whose config.toml names no config_path: what an earlier step left of ours goes."""
        file = "/etc/containerd/config.toml"
        self.by_hand(
            node,
            f"if grep -q config_path {file}; then sed -i '/Added by Moorage/,$d' {file};"
            f" ! grep -q config_path {file} && systemctl restart containerd; fi",
        )

    def preloaded(self) -> str:
        """An image with Python that is on every node before any trust is."""
        if self.agent_image or not self.ours:
            return self.agent_image
        image = self.built()
        words = ("--from-cluster", f"--kubeconfig={self.kubeconfig}")
        self.inv("nodes.preload", image, *words).want(0)
        self.agent_image = image
        return image

    def built(self, image: str = "moorage.local/agent:1") -> str:
        """An image with Python that no registry has.

        Of its own, not a second name for the demo image: since 1.35 a kubelet that has once pulled
        an image with a Secret wants that Secret for all its names
        (https://kep.k8s.io/2535, KubeletEnsureSecretPulledImages).
        """
        from moorage.docker import engine

        recipe = f"FROM {self.settings.image_reference}\nLABEL io.moorage.part=journey\n"
        client = engine.connect(self.settings)
        client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=image, rm=True)
        return image

    def agents(self, *words: str) -> Answer:
        """``inv k8s.agents`` with an image that this cluster has."""
        image = self.preloaded()
        named = (f"--agent-image={image}",) if image else ()
        return self.k8s("agents", "--yes", "--timeout=120", *named, *words)

    def annotation(self, node: str) -> dict[str, Any]:
        """What the node's agent last said."""
        found = self.api.get(paths.one("Node", node))["metadata"].get("annotations") or {}
        said: dict[str, Any] = json.loads(found.get("moorage.dev/agent", "{}"))
        return said

    # -- the registry -------------------------------------------------------------------------

    def front_container(self) -> Any:
        """The front's container: what nodes reach, with the certificate."""
        found = self.registry_container()
        return found.client.containers.get(f"{found.name}-front")

    def registry_container(self) -> Any:
        """The registry's container, where this journey may spoil it."""
        from moorage.docker import engine

        if not self.ours:
            raise NotHere("it would spoil a registry that others may use")
        try:
            client = engine.connect(self.settings)
            return client.containers.get(self.settings.registry.container)
        except MoorageError as problem:
            raise NotHere(f"the registry is not on this machine: {problem.message}") from None

    def registry_up(self) -> None:
        """Certificates and registry as they should be."""
        from moorage import registry
        from moorage.docker import engine
        from moorage.pki import registry as pki
        from moorage.ui import UI

        ui = UI(as_json=True)
        pki.issue(self.settings)
        registry.up(self.settings, engine.connect(self.settings), ui)


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
