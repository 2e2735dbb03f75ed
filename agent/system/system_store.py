"""The host's own trust store: the CA as one more file, and the distribution's tool that reads it.

Only where a plan names the part ``system``: every program of the host trusts the CA then. The
places are those of update-ca-certificates(8) on Debian and Alpine, of update-ca-trust(8) on RHEL,
Fedora and Arch, and of ca-certificates on SUSE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.edit.change import Change, Ledger, Owned, change
from agent.facts import Facts
from agent.formats.authorities import certificates, pem, strip_certificates
from agent.formats.proposal import Explained, Proof, Proposal
from agent.wire.plan import Plan, Registry

PART = "system"


@dataclass(frozen=True)
class Way:
    """How a family of distributions does it: the folder of anchors, the tool, and the bundle that
    it makes and programs read (https://go.dev/src/crypto/x509/root_linux.go)."""

    name: str
    folder: str
    tool: str
    bundle: str


# The first whose folder is there. Of two with one tool the folder tells the family.
WAYS = (
    Way("rhel", "/etc/pki/ca-trust/source/anchors", "update-ca-trust",
        "/etc/pki/tls/certs/ca-bundle.crt"),
    Way("suse", "/etc/pki/trust/anchors", "update-ca-certificates", "/etc/ssl/ca-bundle.pem"),
    Way("arch", "/etc/ca-certificates/trust-source/anchors", "update-ca-trust",
        "/etc/ssl/certs/ca-certificates.crt"),
    Way("debian", "/usr/local/share/ca-certificates", "update-ca-certificates",
        "/etc/ssl/certs/ca-certificates.crt"),
)  # fmt: skip


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """One file a certificate (Debian's tool takes no two in one), then the tool."""
    way = _way(facts)
    if way is None:
        return Proposal(absent="no trust store of a known kind is here", there=True)
    if plan.registry.plain_http:
        return Proposal(absent="a registry without TLS has no CA to trust")
    changes: list[Change] = []
    for number, one in enumerate(sorted(certificates(plan.registry.ca_bytes)), 1):
        file = facts.tree.read(_path(way, plan.registry, number))
        same = certificates(file.content) == frozenset({one})
        changes += () if same else change(PART, file, pem(one))
    return Proposal(tuple(changes), restarts(facts, changes))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """The distribution's way, and those of others."""
    taken = _way(facts)
    return tuple(
        Explained(
            PART,
            way.name,
            way is taken,
            f"{way.folder} is {'' if facts.tree.exists(way.folder) else 'not '}there"
            + (f"; {way.tool} takes it up" if way is taken else ""),
        )
        for way in WAYS
    )


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without our certificate."""
    return strip_certificates(owned, content)


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """The tool, as if it were a service: it takes up the files as they are now, or are again."""
    way = _way(facts)
    return (way.tool,) if way is not None and any(one.part == PART for one in changes) else ()


def further(facts: Facts, plan: Plan) -> tuple[Proof, ...]:
    """TLS with the certificates of the bundle alone."""
    way = _way(facts)
    if way is None or plan.registry.plain_http:
        return ()
    each = (registry.name for registry in plan.registry.each)
    return tuple(Proof("files", PART, reads=(way.bundle,), name=name) for name in each)


def _way(facts: Facts) -> Way | None:
    return next((way for way in WAYS if facts.tree.exists(way.folder)), None)


def _path(way: Way, registry: Registry, number: int) -> str:
    name = registry.name.replace(":", "-")
    return f"{way.folder}/moorage-{name}{'' if number == 1 else f'-{number}'}.crt"
