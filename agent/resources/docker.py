"""Docker Engine: a CA file in ``/etc/docker/certs.d/<registry>/``, read at every pull.

Docker trusts every ``*.crt`` in that folder, so another's file is never touched: ours comes beside.
"""

from __future__ import annotations

from agent.facts import Facts, Tree
from agent.plan import Plan, Registry
from agent.resources import (
    Change,
    Finding,
    Ledger,
    Owned,
    Proposal,
    certificates,
    change,
    readable,
    without_certificates,
)

PART = "docker"
FOLDER = "/etc/docker/certs.d"


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The CA in the registry's folder, unless a file there has it already."""
    if facts.docker is None:
        return Proposal(absent="there is no Docker Engine here")
    folder = f"{FOLDER}/{plan.registry.name}"
    return Proposal(changes=certificate_file(PART, facts.tree, folder, plan.registry, owned))


def explain(facts: Facts, plan: Plan) -> tuple[Finding, ...]:
    """Where Docker looks for the registry's CA, and whether ours is there."""
    if facts.docker is None:
        return (Finding(PART, "certs.d", False, "there is no Docker Engine here"),)
    changes = propose(facts, plan, {}).changes
    folder = f"{FOLDER}/{plan.registry.name}"
    why = f"the CA comes into {changes[0].path}" if changes else f"a file in {folder} has the CA"
    return (Finding(PART, "certs.d", True, f"{why}; read at every pull, no restart"),)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without our certificates; gone where nothing else is in it."""
    return strip_certificates(owned, content)


def certificate_file(
    part: str, tree: Tree, folder: str, registry: Registry, owned: Ledger
) -> tuple[Change, ...]:
    """The change that puts the CA into a folder whose every ``*.crt`` is trusted."""
    wanted = certificates(registry.ca_bytes)
    names = ["ca.crt", *(name for name in tree.names(folder) if name.endswith(".crt"))]
    files = [tree.read(f"{folder}/{name}") for name in dict.fromkeys(names)]
    for file in files:
        mine = owned.get(file.path)
        if mine is not None and file.content is not None and file.content == mine.after:
            return change(part, file, registry.ca_bytes)
    if any(wanted <= certificates(file.content) for file in files):
        return ()
    for name in ("ca.crt", "moorage-ca.crt"):
        file = tree.read(f"{folder}/{name}")
        if readable(file) is None or name != "ca.crt":
            return change(part, file, registry.ca_bytes)
    return ()


def strip_certificates(owned: Owned, content: bytes) -> bytes | None:
    """A CA file others edited since: without our certificates, gone where nothing else is in it."""
    rest = without_certificates(content, certificates(owned.after))
    return rest if rest.strip() else None
