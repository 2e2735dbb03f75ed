"""All that stands while the session runs: registry, real nodes, simulated agents, the operator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.journal.ledger import Store
from agent.journal.lock import holder
from agent.resident.home import AgentSettings, Home
from moorage.pki import registry as pki
from moorage.pki.authority import Authority
from moorage.pki.roster import Resident, Roster
from moorage.registry.front import roles
from moorage.registry.front.roles import User
from moorage.registry.logins import users
from moorage.settings import ROOT, Settings
from tests.agent.real import LAB, NAME, OF_NODES, PASSWORD, REGISTRY, USER, Registry, images
from tests.fleet import simulated
from tests.fleet.nodes import LABELS, NETWORK, REGISTRY_ADDRESS, FleetNode, left_over, network
from tests.fleet.runs import Operator
from tests.unit.elsewhere import project

MOST_REAL = 64
# Enough that a rollout does not run through all of them before it is stopped.
FEWEST_SIMULATED = 60
# Ten are hurt, each in its own way; the operator is stopped three times at two of the others.
FEWEST_REAL = 16
LINES = ("1.7", "2")
PORT = 7443
PROCESSES = 4
PROGRAM = Path("/usr/bin/true")
# A node with systemd, sshd, containerd and an agent at work, and what is left for all else.
NODE_BYTES, REST_BYTES = 128 << 20, 3 << 30
# More of them the memory would hold, and a quarter of an hour would not.
NODES_A_CORE = 12


def available() -> int:
    """Bytes of memory that could be had now: proc(5), MemAvailable."""
    text = Path("/proc/meminfo").read_text()
    return int(re.findall(r"MemAvailable:\s+(\d+) kB", text)[0]) << 10


def room_for() -> int:
    """How many real nodes this machine carries."""
    by_memory = (available() - REST_BYTES) // NODE_BYTES
    return max(FEWEST_REAL, min(MOST_REAL, by_memory, NODES_A_CORE * (os.cpu_count() or 1)))


class RealPlace(FleetNode):
    """A real node as the judge sees it."""

    ca = b""

    def trusts(self) -> bool:
        """By files alone; that pulls work, the agent has proved before it said so."""
        hosts = (self.read("/etc/hosts") or b"").decode()
        ca = self.read(f"/etc/containerd/certs.d/{NAME}/ca.crt")
        return ca == self.ca and f"{REGISTRY_ADDRESS}\t{NAME}" in hosts.replace(" ", "\t")


@dataclass
class SimulatedPlace:
    """A simulated node as the judge sees it."""

    name: str
    kind: str
    address: str
    root: Path
    original: str = ""
    line: str = "simulated"

    def look(self) -> str:
        return repr(simulated.look(self.root))

    def unfinished(self) -> bool:
        return (Store(str(self.root)).active / "intent.json").exists()

    def trusts(self) -> bool:
        hosts = (self.root / "etc/hosts").read_text()
        found = self.root / f"etc/containerd/certs.d/{NAME}/ca.crt"
        return found.exists() and REGISTRY_ADDRESS in hosts

    def starts(self) -> int:
        return Path(f"{self.root}.starts").read_text().count("\n")

    def busy(self) -> bool:
        """Whether an agent is at work, by the lock that it holds."""
        return holder(Store(str(self.root))) is not None


class Issued:
    """The operator's own CA, in the place of a test's."""

    def __init__(self, certs: Path) -> None:
        self._certs = certs
        self.pem = (certs / "ca.crt").read_text()

    def issue(self, *_: str) -> tuple[bytes, bytes]:
        return (self._certs / "registry.crt").read_bytes(), (
            self._certs / "registry.key"
        ).read_bytes()


class Session:
    def __init__(self, client: docker.DockerClient, folder: Path, real: int, honest: int) -> None:
        self.client = client
        self.folder = folder
        self.real: dict[str, RealPlace] = {}
        self.honest: dict[str, SimulatedPlace] = {}
        self.liars: dict[str, SimulatedPlace] = {}
        self._numbers = (real, honest)
        self.settings: Settings = project(folder / "operator")
        self.image = ""

    @contextmanager
    def up(self) -> Iterator[Session]:
        began = time.monotonic()
        with ExitStack() as stack:
            left = left_over(self.client)
            assert not left, f"a session before this one has left {[one.name for one in left]}"
            stack.enter_context(network(self.client))
            place = self.folder / "operator"
            place.mkdir()
            nodes = {"ssh_config": str(self.folder / "ssh_config"), "agent_port": PORT,
                     "known_hosts": str(self.folder / "known_hosts")}  # fmt: skip
            registry = {"address": REGISTRY_ADDRESS, "user": USER}
            self.operator = Operator(place, {"nodes": nodes, "registry": registry})
            secrets = place / ".moorage" / "registry"
            secrets.mkdir(mode=0o700)
            (secrets / "password").write_text(PASSWORD)
            _give_nodes_a_login(self.settings)
            pki.issue(self.settings)
            self._registry(stack)
            self._real(stack)
            self._simulated(stack)
            self._configure()
            print(f"up in {time.monotonic() - began:.0f} s: {self.words()}", flush=True)
            yield self

    def words(self) -> str:
        return (
            f"{len(self.real)} real nodes, {len(self.honest)} simulated, {len(self.liars)} liars; "
            f"{self.node_bytes >> 20} MiB a real node"
        )

    def _registry(self, stack: ExitStack) -> None:
        image = next(iter(images(self.client, REGISTRY).values()), "")
        assert image, "no registry image; inv up builds one"
        issued = Issued(self.settings.certs_dir)
        registry = Registry(
            self.client, image, issued, labels=LABELS, container="f-fleet-registry"  # type: ignore[arg-type]
        )  # fmt: skip
        stack.callback(registry.container.remove, force=True, v=True)
        self.client.networks.get(NETWORK).connect(registry.container, ipv4_address=REGISTRY_ADDRESS)
        self.image = registry.push(self.client, PROGRAM)
        RealPlace.ca = issued.pem.encode()

    def _real(self, stack: ExitStack) -> None:
        found = images(self.client, LAB)
        missing = [line for line in LINES if line not in found]
        assert not missing, f"no lab image with containerd {missing}; inv up builds them"
        key = self.folder / "id"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        public = key.with_suffix(".pub").read_text().strip()
        before = available()

        def make(number: int) -> tuple[RealPlace, str]:
            image = found[LINES[number % len(LINES)]]
            node = RealPlace(self.client, number, image, self.folder, public)
            stack.callback(node.remove)
            return node, node.boot()

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(make, range(1, self._numbers[0] + 1)))
        self.real = {node.name: node for node, _ in made}
        (self.folder / "known_hosts").write_text("".join(line for _, line in made))
        self.node_bytes = max(0, before - available()) // max(1, len(made))

    def _simulated(self, stack: ExitStack) -> None:
        folder = self.folder / "simulated"
        folder.mkdir()
        kinds = [simulated.HONEST] * self._numbers[1]
        kinds += [kind for kind in simulated.KINDS if kind != simulated.HONEST]
        authority, roster = Authority.open(self.settings), Roster(self.settings)
        for number, kind in enumerate(kinds, 1):
            name = f"s{number:03}" if kind == simulated.HONEST else f"liar-{kind}"
            address = f"127.77.{number // 250}.{number % 250 + 1}"
            place = SimulatedPlace(name, kind, address, folder / name)
            simulated.lay_out(place.root)
            place.original = place.look()
            self._enrol(place, authority, roster)
            (self.honest if kind == simulated.HONEST else self.liars)[name] = place
        everyone = {**self.honest, **self.liars}
        for part in range(PROCESSES):
            mine = list(everyone)[part::PROCESSES]
            self._serve(stack, folder, {name: everyone[name] for name in mine})

    def _enrol(self, place: SimulatedPlace, authority: Authority, roster: Roster) -> None:
        """As adoption does: a key, a request, a certificate, and a line in the roster."""
        home, identity = Home(str(place.root)), os.urandom(16).hex()
        home.folder.mkdir(parents=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        made = authority.sign(request.decode(), identity)
        home.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        home.certificate.write_text(made.pem)
        home.authority.write_text(authority.pem)
        home.write_settings(AgentSettings(identity, place.address, PORT, made.until))
        if place.kind == "other":
            identity = os.urandom(16).hex()  # the roster expects another node there
        roster.put(place.name, Resident(identity, PORT, made.serial, made.until))

    def _serve(self, stack: ExitStack, folder: Path, places: dict[str, SimulatedPlace]) -> None:
        argv = [sys.executable, "-m", "tests.fleet.simulated", str(folder), str(PORT)]
        log = stack.enter_context((folder / f"{next(iter(places))}.log").open("wb"))
        process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        nodes = {one.name: {"kind": one.kind, "address": one.address} for one in places.values()}
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(nodes).encode())
        process.stdin.close()
        assert process.stdout.readline() == b"serving\n", log.name

    def _configure(self) -> None:
        """The operator's ~/.ssh/config: simulated nodes have no sshd, as a closed port says."""
        blocks = [f"Host {node.name}\n  HostName {node.address}\n" for node in self.real.values()]
        blocks += [
            f"Host {one.name}\n  HostName {one.address}\n  Port 9\n"
            for one in (*self.honest.values(), *self.liars.values())
        ]
        both = f"Host *\n  User root\n  IdentityFile {self.folder / 'id'}\n  IdentitiesOnly yes\n"
        (self.folder / "ssh_config").write_text("".join(blocks) + both)


def _give_nodes_a_login(settings: Settings) -> None:
    """The login that ``inv registry.up`` would make, as this registry knows it."""
    proof = roles.proof(users.ensure_key(settings), PASSWORD)
    users.write(settings, [User(OF_NODES, "pull", purpose=users.NODES, proofs=(proof,))])
    path = settings.state / "registry" / "logins" / OF_NODES
    path.parent.mkdir(mode=0o700)
    path.write_text(PASSWORD)
