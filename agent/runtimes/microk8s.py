"""MicroK8s: hosts.toml files in its own ``args/certs.d``, read at every pull.

``current`` is a link to the revision at work; a refresh copies the folder to the next one. Before
1.23 its containerd had ``registry.mirrors`` in a template instead; beside it no such file counts.
https://microk8s.io/docs/registry-private
"""

from __future__ import annotations

from agent.edit.change import Ledger, Owned
from agent.facts import Facts
from agent.formats import certs_d
from agent.formats.proposal import Explained, Proof, Proposal
from agent.runtimes import containerd
from agent.wire.faults import RefusedError
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import Declaration, Kind

RUNTIME = Declaration(
    "microk8s",
    place=6,
    kinds=(
        Kind("microk8s", units=("snap.microk8s.daemon-containerd.service",),
             folder="/var/snap/microk8s/current/args"),
    ),
    socket="/var/snap/microk8s/common/run/containerd.sock",
    kubelet=True,
    writes=("/var/snap/microk8s",),
    containerds=("/var/snap/microk8s/",),
)  # fmt: skip
PART = RUNTIME.name
ARGS = "/var/snap/microk8s/current/args"
ROOT = f"{ARGS}/certs.d"
TEMPLATE = f"{ARGS}/containerd-template.toml"


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The registry's folder."""
    if PART not in facts.others:
        return Proposal(absent="there is no MicroK8s here")
    if not _reads_folders(facts):
        raise RefusedError(
            "microk8s-template",
            f"{TEMPLATE} has no config_path: this MicroK8s does not read certs.d",
            cause="it is older than 1.23, or its template was edited",
            cure="snap refresh microk8s, or add the registry to the template by hand",
        )
    return Proposal(certs_d.changes(PART, facts.tree, ROOT, plan, owned))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Whether its containerd reads the folder."""
    if PART not in facts.others:
        return (Explained(PART, "certs.d", False, "there is no MicroK8s here"),)
    reads = _reads_folders(facts)
    return (
        Explained(PART, "certs.d", reads, f"{TEMPLATE} {'names' if reads else 'does not name'} it"),
    )


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without what is ours."""
    return containerd.strip(owned, content, registry)


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull through its containerd."""
    found = facts.others.get(PART)
    if found is None or not found.running:
        return ()
    return (Proof("cri", RUNTIME.socket, found.unit, roots=(ROOT,)),)


def doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    """A folder that tells its containerd to verify nothing."""
    return certs_d.doubts(facts.tree, [ROOT], plan)


def _reads_folders(facts: Facts) -> bool:
    text = facts.tree.read(TEMPLATE).content or b""
    return any(line.strip().startswith(b"config_path") for line in text.splitlines())
