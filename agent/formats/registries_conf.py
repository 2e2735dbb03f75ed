"""What Podman, Buildah, Skopeo and CRI-O share: the folders of the containers/image library.

``certs.d`` is read at every pull (containers-certs.d(5)). Of a user's folder for a registry, the
system's and Docker's ``/etc/docker/certs.d/<registry>`` the library takes the first that exists and
no other (``dockerCertDir`` in its ``docker/docker_client.go``): where root has one, the CA goes in
there, and where Docker's has a client's key, the CA joins it. A client's pair of ours lies beside
the CA. ``registries.conf.d`` is for a mirror and for plain HTTP alone
(containers-registries.conf.d(5)): of two ``[[registry]]`` tables with one prefix the last file's
replaces the other whole, so a table of somebody else's is never doubled.
"""

from __future__ import annotations

from typing import Any

from agent.edit.change import HEADER, Change, Ledger, Owned, change, readable
from agent.edit.toml import TomlError, parse
from agent.facts import Facts
from agent.formats import client_files, folder_pairs
from agent.formats.authorities import certificate_file, certificates, strip_certificates
from agent.node.tree import Tree
from agent.wire.faults import RefusedError
from agent.wire.plan import Mirror, Plan, Registry

CERTS = "/etc/containers/certs.d"
DOCKER_CERTS = "/etc/docker/certs.d"
HOME_CERTS = ".config/containers/certs.d"
MAIN = "/etc/containers/registries.conf"
DROP_INS = "/etc/containers/registries.conf.d"


def changes(part: str, facts: Facts, plan: Plan, owned: Ledger) -> tuple[Change, ...]:
    """The CA in the registry's folder, and a drop-in a table that has no other place."""
    found: list[Change] = []
    if not plan.registry.plain_http:
        for registry in plan.registry.spellings:
            place = folder(facts.tree, registry, owned)
            folder_pairs.require_whole(facts.tree, place, owned, by_containerd=False)
            found += certificate_file(part, facts.tree, place, registry, owned)
            found += client_files.in_folder(part, facts.tree, place, registry, owned)
    else:
        # A prefix without a port is that of a name with one too (containers-registries.conf(5)).
        for registry in plan.registry.each:
            lines = f'[[registry]]\nlocation = "{registry.name}"\ninsecure = true\n'
            found += _drop_in(part, facts.tree, registry.name, lines, owned)
    for mirror in plan.mirrors:
        lines = mirror_table(mirror, plan.registry)
        found += _drop_in(part, facts.tree, mirror.of, lines, owned)
    return tuple(found)


def strip(owned: Owned, content: bytes) -> bytes | None:
    """A CA file without our certificates; a drop-in that others edited is theirs but our table."""
    if client_files.is_one(owned.path):
        return client_files.strip(owned, content)
    if not owned.path.endswith(".conf"):
        return strip_certificates(owned, content)
    ours = owned.after or b""
    rest = content.replace(ours, b"")
    return rest if rest.strip() else None


def is_drop_in(path: str) -> bool:
    return path.startswith(f"{DROP_INS}/")


def folder(tree: Tree, registry: Registry, owned: Ledger) -> str:
    """The folder that counts for a registry: the first that exists, be it empty."""
    folders = (f"{_home_of_root(tree)}/{HOME_CERTS}", CERTS, DOCKER_CERTS)
    roots, ours, dockers = (f"{one}/{registry.name}" for one in folders)
    there = next((one for one in (roots, ours) if tree.exists(one)), None)
    if there is not None:
        return there
    theirs = [
        name
        for name in tree.names(dockers)
        if f"{dockers}/{name}" not in owned
        and not client_files.is_ours(tree.read(f"{dockers}/{name}"))
        and certificates(tree.read(f"{dockers}/{name}").content) != certificates(registry.ca_bytes)
    ]
    return dockers if theirs else ours


def shadowed(tree: Tree, registry: Registry) -> tuple[str, ...]:
    """What users have below their homes for a registry without its CA: theirs counts for them."""
    folders = (f"/home/{user}/{HOME_CERTS}/{registry.name}" for user in tree.names("/home"))
    wanted = certificates(registry.ca_bytes)
    return tuple(
        place
        for place in folders
        if tree.exists(place)
        and not any(
            wanted <= certificates(tree.read(f"{place}/{name}").content)
            for name in tree.names(place)
            if name.endswith(".crt")
        )
    )


def _home_of_root(tree: Tree) -> str:
    """As passwd(5) has it: the library asks the environment first, which services do not have."""
    for line in (tree.read("/etc/passwd").content or b"").decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) > 5 and fields[2] == "0" and fields[5].startswith("/"):
            return fields[5].rstrip("/")
    return "/root"


def mirror_table(mirror: Mirror, registry: Registry) -> str:
    """The table of a mirrored registry. Without fall-back it is taken for ours altogether."""
    insecure = "insecure = true\n" if registry.plain_http else ""
    head = f'[[registry]]\nprefix = "{mirror.of}"\n'
    if not mirror.fallback:
        return f'{head}location = "{mirror.place(registry)}"\n{insecure}'
    return (
        f'{head}location = "{mirror.of}"\n\n'
        f'[[registry.mirror]]\nlocation = "{mirror.place(registry)}"\n{insecure}'
    )


def _drop_in(part: str, tree: Tree, of: str, lines: str, owned: Ledger) -> tuple[Change, ...]:
    path = f"{DROP_INS}/50-moorage-{of.replace(':', '-')}.conf"
    ours = (HEADER + lines).encode()
    file = tree.read(path)
    there = readable(file)
    mine = owned.get(path)
    if there is not None and there != ours and not (mine is not None and there == mine.after):
        raise _foreign(path, of)
    for other in (MAIN, *(f"{DROP_INS}/{name}" for name in tree.names(DROP_INS))):
        if other != path and other.endswith(".conf") and _speaks_of(tree, other, of):
            raise _foreign(other, of)
    return change(part, file, ours)


def _speaks_of(tree: Tree, path: str, of: str) -> bool:
    """Whether a file has a table for a registry; a file that is no TOML has none that counts."""
    return any((one.get("prefix") or one.get("location")) == of for one in _tables(tree, path))


def _tables(tree: Tree, path: str) -> list[dict[str, Any]]:
    try:
        found = parse(tree.read(path).content or b"").get("registry")
    except TomlError:
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def doubts(tree: Tree, plan: Plan) -> tuple[str, ...]:
    """Why a pull shows nothing: a table has ``insecure`` for the registry, or for a part of it."""
    found = []
    names = () if plan.registry.plain_http else [one.name for one in plan.registry.spellings]
    for path in (MAIN, *(f"{DROP_INS}/{name}" for name in tree.names(DROP_INS))):
        for one in _tables(tree, path) if path.endswith(".conf") else ():
            of = str(one.get("prefix") or one.get("location") or "")
            if one.get("insecure") is True and of.partition("/")[0] in names:
                found.append(f"{path} has insecure for {of}: no certificate is verified there; "
                             "take it out")  # fmt: skip
    return tuple(found)


def _foreign(path: str, of: str) -> RefusedError:
    return RefusedError(
        "registries-conf-foreign",
        f"{path} says already how {of} is asked",
        cause="another tool configured it, and of two tables for one registry only one counts",
        cure=f"take the [[registry]] of {of} out of {path}, then run again",
    )
