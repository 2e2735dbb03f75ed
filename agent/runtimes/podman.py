"""Podman, Buildah and Skopeo: programs without a service, so nothing is ever restarted."""

from __future__ import annotations

from agent.edit.change import Ledger, Owned
from agent.facts import Facts
from agent.formats import registries_conf
from agent.formats.proposal import Explained, Proof, Proposal
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import AUTH, IMAGE, Declaration, Kind

RUNTIME = Declaration(
    "podman",
    place=4,
    kinds=(Kind("podman", ("podman", "buildah", "skopeo")),),
    readers=("podman.service",),
    writes=(
        "/var/lib/containers", "/run/containers", "/run/libpod", "/run/lock",
        "/root/.config/containers/certs.d",
    ),
    proves="podman",
    by_hand="podman pull",
    certificates="/etc/containers/certs.d",
)  # fmt: skip
PART = RUNTIME.name


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The CA in /etc/containers/certs.d, a drop-in for a mirror or for plain HTTP."""
    if PART not in facts.others:
        return Proposal(absent="there is no Podman, Buildah or Skopeo here")
    notes = [
        f"podman: {place} applies to its user and does not have the CA: add it there"
        for registry in (() if plan.registry.plain_http else plan.registry.spellings)
        for place in registries_conf.shadowed(facts.tree, registry)
    ]
    return Proposal(registries_conf.changes(PART, facts, plan, owned), notes=tuple(notes))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Which folder counts, and why."""
    if PART not in facts.others:
        return (Explained(PART, "certs.d", False, "there is no Podman, Buildah or Skopeo here"),)
    return explained(PART, facts, plan, "read at every pull")


def explained(part: str, facts: Facts, plan: Plan, when: str) -> tuple[Explained, ...]:
    """The findings for whatever reads the folders of containers/image."""
    place = registries_conf.folder(facts.tree, plan.registry, {})
    found = [Explained(part, "certs.d", not plan.registry.plain_http, f"{place}, {when}")]
    if plan.registry.plain_http or plan.mirrors:
        why = f"a drop-in in {registries_conf.DROP_INS}: it has no other place"
        found.append(Explained(part, "registries.conf.d", True, why))
    return tuple(found)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without what is ours."""
    return registries_conf.strip(owned, content)


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull by the first of the three that is here: they read the same files by the same code."""
    found = facts.others.get(PART)
    if found is None or not found.binary:
        return ()
    return (Proof(RUNTIME.proves, found.binary, command=command(found.binary)),)


def command(program: str) -> tuple[str, ...]:
    """How it pulls, with the login in memory (containers-auth.json(5)).

    Skopeo keeps no images; it asks for the manifest.
    """
    words = {
        "skopeo": ("inspect", "--authfile", AUTH, f"docker://{IMAGE}"),
        "buildah": ("pull", "--quiet", "--authfile", AUTH, IMAGE),
    }
    usual = ("pull", "--quiet", "--authfile", AUTH, IMAGE)
    return (program, *words.get(program.rpartition("/")[2], usual))


def doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    """A table that tells them to verify nothing."""
    return registries_conf.doubts(facts.tree, plan)
