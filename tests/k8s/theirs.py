"""The steps with a registry of somebody else's: token logins, a CA of its own, and a checkout that
reaches no engine and has no CA's key. The cluster's nodes pull from it beside the registry of ours.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from docker.errors import ImageNotFound

from moorage.cluster.symptoms import causes
from moorage.configuration import parsing
from moorage.docker import engine
from tests.agent.authority import Authority
from tests.distribution import PASSWORD, ROBOT, STRANGER, serving
from tests.e2e import theirs
from tests.e2e.theirs import Theirs
from tests.k8s.journey import Answer, Journey
from tests.k8s.steps import HOSTS_FILE_AGE, step, variant
from tests.pulp.checkout import Checkout

# What of a node is as it was once it is untrusted.
FILES = "find /etc/containerd /etc/hosts -type f | sort | xargs sha256sum"


@dataclass
class Elsewhere(Journey):
    """The same cluster, by ``inv`` of a checkout that knows the registry of somebody else's."""

    checkout: Checkout | None = None
    registry: Theirs | None = None

    def inv(self, *words: str, stdin: str = "", timeout: float = 500) -> Answer:
        """Runs ``inv … --json`` in that checkout."""
        del timeout
        assert self.checkout is not None
        found = self.checkout.inv(*words, stdin=stdin)
        return Answer(found.code, found.document, found.words)

    def trusted(self) -> None:
        """The three commands: the nodes have pulled from it at the end of the last one."""
        assert self.checkout is not None and self.registry is not None
        told = theirs.trusted(self.checkout, self.registry.fingerprint, self.nodes())
        assert all(one["pull_seconds"] is not None for one in told), told
        assert not (self.checkout.folder / "certs" / "ca.key").exists()

    def untrusted(self) -> None:
        self.inv("nodes.untrust", f"--hosts={','.join(self.nodes())}").want()


@contextmanager
def elsewhere(
    journey: Journey, *, public: bool = False, image: str = "team/app"
) -> Iterator[Elsewhere]:
    """It serves the demo image as team/app:1, and team/bare:1, in which no program is; ``image``
    proves the trust. Every node is at the end as it was."""
    journey.registry_container()
    nodes = journey.nodes()
    before = {node: journey.on_node(node, FILES) for node in nodes}
    with TemporaryDirectory() as name:
        folder = Path(name)

        def filled(there: Path) -> None:
            _fill(journey, there)

        with theirs.standing(folder / "registry", filled, public=public) as registry:
            ssh = folder / "ssh_config"
            ssh.write_text(_by_address(journey))
            checkout = registry.checkout(folder / "checkout", ssh, image)
            settings = parsing.parse(yaml.safe_load((checkout.folder / "invoke.yaml").read_text()))
            made = Elsewhere(
                settings, journey.kubeconfig, journey.ours, journey.agent_image,
                project=journey.project, checkout=checkout, registry=registry,
            )  # fmt: skip
            try:
                yield made
            finally:
                made.untrusted()
    assert {node: journey.on_node(node, FILES) for node in nodes} == before


def _fill(journey: Journey, folder: Path) -> None:
    """Both images, by plain HTTP on loopback, where engines ask for no trust."""
    client = engine.connect(journey.settings)
    with serving(folder, None) as served:
        names = [f"127.0.0.1:{served.port}/team/{one}" for one in ("app", "bare")]
        journey.built(f"{names[0]}:1")
        client.api.import_image_from_data(_one_file(), repository=names[1], tag="1")
        try:
            for name in names:
                said = client.images.push(name, "1")
                assert "error" not in said, said
        finally:
            for name in names:
                with suppress(ImageNotFound):
                    client.images.remove(f"{name}:1")


def _one_file() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("here"))
    return made.getvalue()


def _by_address(journey: Journey) -> str:
    """The lab's nodes as a user's ~/.ssh/config has them: also by the address the API tells."""
    lines = (journey.project / ".moorage" / "lab" / "ssh_config").read_text().splitlines()
    named = [
        f"{line} {after.split()[1]}" if line.startswith("Host ") else line
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
    ]
    return "\n".join([*named, ""])


@step
def a_registry_of_somebody_else_s_is_pulled_from_by_the_cluster(journey: Journey) -> None:
    """Three commands; a pod without a Secret is told the registry's words, --fix, and it runs."""
    with elsewhere(journey) as there, there.namespace("theirs") as name:
        there.trusted()
        there.foreign(name, there.settings.image_reference)
        answer = there.diagnosed(name, causes.NO_SECRET.code)
        evidence = answer.causes[causes.NO_SECRET.code]["evidence"]
        assert "insufficient_scope" in evidence or "401" in evidence, evidence
        there.fixed(name)


@variant
def logins_and_images_of_somebody_else_s_registry_are_told_apart(journey: Journey) -> None:
    """There: a wrong password, a user without the right, a missing tag, a missing repository."""
    with elsewhere(journey) as there:
        there.trusted()
        found = there.inv("doctor", f"--hosts={','.join(there.nodes())}").want().document
        assert {one["state"] for one in found["findings"]} == {"fine"}, found
        image = there.settings.image_reference
        with there.namespace("password") as name:
            words = (f"--namespace={name}", "--credentials=-")
            there.k8s("secret", *words, stdin=f"{ROBOT}:old-words\n").want()
            there.foreign(name, image, secret="my-registry")
            cause = there.diagnosed(name, "secret-wrong-login").causes["secret-wrong-login"]
            assert "another password" in cause["cause"], cause
            there.fixed(name)
        with there.namespace("right") as name:
            words = (f"--namespace={name}", "--credentials=-")
            there.k8s("secret", *words, stdin=f"{STRANGER}:{PASSWORD}\n").want()
            there.foreign(name, image, secret="my-registry")
            cause = there.diagnosed(name, "access-denied").causes["access-denied"]
            assert f"{STRANGER} of my-registry may not" in cause["cause"], cause
        with there.namespace("tag") as name:
            there.k8s("secret", f"--namespace={name}", "--attach").want()
            there.foreign(name, f"{image.rpartition(':')[0]}:2")
            cause = there.diagnosed(name, "tag-missing").causes["tag-missing"]
            assert cause["cause"].endswith("it has: 1"), cause
        with there.namespace("repository") as name:
            there.k8s("secret", f"--namespace={name}", "--attach").want()
            there.foreign(name, f"{there.settings.registry_name}/nothing/here:1")
            there.diagnosed(name, "repository-missing")


@variant
def the_demo_runs_from_somebody_else_s_registry_on_every_node(journey: Journey) -> None:
    """`k8s.deploy --image` with its Secret; k8s.nodes says what each node has proved."""
    with elsewhere(journey) as there, there.namespace("deploy") as name:
        there.trusted()
        image = f"--image={there.settings.image_reference}"
        answer = there.k8s("deploy", f"--namespace={name}", image, "--timeout=90").want()
        assert answer.document["answer"] == "private-reg"
        words = ("--workload=daemonset", "--name=every", "--timeout=120")
        there.k8s("deploy", f"--namespace={name}", image, *words).want()
        told = there.k8s("nodes").want().document["nodes"]
        assert {one["name"] for one in told if one["trusts"]} == set(there.nodes()), told
        there.k8s("rm", f"--namespace={name}", "--yes").want()
        assert there.find("Pod", name, "private-reg") is None


@variant
def a_node_that_does_not_trust_somebody_else_s_registry_is_cured(journey: Journey) -> None:
    """The trust is gone from one node: it is named, and --fix brings it back over SSH."""
    with elsewhere(journey) as there, there.namespace("trust") as name:
        there.trusted()
        there.k8s("secret", f"--namespace={name}", "--attach").want()
        node = there.nodes()[0]
        there.inv("nodes.untrust", f"--hosts={node}").want()
        assert there.registry is not None
        entry = f"{there.registry.address} {theirs.NAME}"
        there.on_node(node, f"echo {entry} >> /etc/hosts")
        time.sleep(HOSTS_FILE_AGE)
        there.foreign(name, there.settings.image_reference)
        there.diagnosed(name, "x509-unknown-authority", node)
        drop = f"sed '/^{entry}$/d' /etc/hosts > /tmp/h && cat /tmp/h > /etc/hosts"
        there.on_node(node, drop)
        there.fixed(name)


@variant
def another_ca_of_somebody_else_s_registry_is_told(journey: Journey) -> None:
    """Its CA is another one day: no trust is offered until that CA is stored, then --fix does."""
    with elsewhere(journey) as there, there.namespace("ca") as name:
        there.trusted()
        there.k8s("secret", f"--namespace={name}", "--attach").want()
        assert there.registry is not None
        there.registry.serve(Authority("of another day", days=400))
        there.foreign(name, there.settings.image_reference)
        cause = there.diagnosed(name, causes.UNVOUCHED.code).causes[causes.UNVOUCHED.code]
        assert cause["fix"] == ""
        assert cause["cure"].startswith("inv registry.ca --fetch")
        found = there.inv("doctor").document["findings"]
        assert [one["cure"] for one in found if "registry.ca --fetch" in one["cure"]], found
        there.inv("registry.ca", "--fetch", f"--fingerprint={there.registry.fingerprint}").want()
        there.diagnosed(name, "x509-unknown-authority")
        there.fixed(name)


@variant
def a_registry_of_somebody_else_s_that_is_open_to_everybody_needs_no_secret(
    journey: Journey,
) -> None:
    """No login is kept: trust, deploy and a missing tag go without one."""
    with elsewhere(journey, public=True) as there, there.namespace("open") as name:
        assert there.registry is not None
        fingerprint = f"--fingerprint={there.registry.fingerprint}"
        there.inv("registry.ca", "--fetch", fingerprint).want()
        there.inv("nodes.trust", f"--hosts={','.join(there.nodes())}").want()
        there.k8s("deploy", f"--namespace={name}", "--timeout=90").want()
        assert there.find("Secret", name, "my-registry") is None
        there.foreign(name, f"{there.settings.image_reference.rpartition(':')[0]}:2")
        there.diagnosed(name, "tag-missing")


@variant
def agents_bring_the_trust_in_somebody_else_s_registry(journey: Journey) -> None:
    """A DaemonSet for it: every node proves it by pulling an image in which nothing can be run;
    away again, its trust with it."""
    journey.alone()
    journey.trust()
    journey.k8s("agents", "--remove", "--yes").want()
    journey.agents_stand = False
    journey.preloaded()
    with elsewhere(journey, image="team/bare") as there:
        there.trusted()
        there.untrusted()
        answer = there.agents().want()
        try:
            assert {one["grade"] for one in answer.document["nodes"]} == {"files"}
            assert all(one["proven"] for one in answer.document["nodes"])
            told = there.k8s("nodes").want().document["nodes"]
            assert {one["by"] for one in told} == {"agent"}, told
            with there.namespace("agents") as name:
                image = f"--image={there.settings.registry_name}/team/app:1"
                there.k8s("deploy", f"--namespace={name}", "--workload=daemonset", image).want()
        finally:
            words = ("--remove", "--untrust", "--yes", "--timeout=120")
            there.k8s("agents", *words).want()
