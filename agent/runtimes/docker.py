"""Docker Engine: a CA file in ``certs.d/<registry>/``, read at every pull.

Docker trusts every ``*.crt`` in that folder, so another's file is never touched: ours comes beside.
``daemon.json`` is touched only for what has no other place, a mirror of docker.io and plain HTTP;
both are among what dockerd takes up at a reload, without a restart
(https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior).
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator, Sequence

from agent.edit import json_edit
from agent.edit.change import Change, Ledger, Owned, change, readable
from agent.edit.utf8 import encoding
from agent.facts import Docker, Facts
from agent.facts.daemons import option
from agent.facts.docker import LOOPBACK
from agent.formats import client_files, folder_pairs
from agent.formats.authorities import (
    BESIDE,
    certificate_file,
    certificates,
    strip_certificates,
)
from agent.formats.proposal import Explained, Proof, Proposal, unit_of
from agent.node.host import RELOAD
from agent.node.tree import File, Tree
from agent.wire.faults import RefusedError
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import Declaration

RUNTIME = Declaration(
    "docker",
    place=1,
    usual=True,
    readers=("docker.service", "snap.docker.dockerd.service"),
    writes=("/var/snap/docker",),
    containerds=("/run/docker/", "/var/run/docker/"),
    proves="docker",
    by_hand="docker pull",
    certificates="/etc/docker/certs.d",
)
PART = RUNTIME.name
HUB = "docker.io"
# Docker adds the certificates of the folder to the system's own, of which the first file counts
# (https://go.dev/src/crypto/x509/root_linux.go).
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
           "/etc/ssl/ca-bundle.pem")  # fmt: skip
MIRRORS = "registry-mirrors"
INSECURE = "insecure-registries"
# dockerd does not start where a setting stands both in its file and on its command line.
_FLAGS = {MIRRORS: "--registry-mirror", INSECURE: "--insecure-registry"}


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """The CA in the registry's folder of each engine, unless a file there has it already."""
    if not facts.dockers:
        return Proposal(absent="there is no Docker Engine here")
    changes: list[Change] = []
    notes: list[str] = []
    for engine in facts.dockers:
        problem = _out_of_reach(facts.tree, engine)
        if problem:
            notes.append(problem)
            continue
        for registry in plan.registry.spellings:
            changes += _ca_files(facts.tree, engine, registry, owned)
        changes += _hosts_files(facts.tree, engine, plan, owned)
        edited = _daemon_json(facts.tree, engine, plan)
        changes += edited
        if edited and engine.home:
            notes.append(
                f"docker: its user must reload the rootless engine of {engine.home} for "
                f"{engine.config} to count: systemctl --user reload docker"
            )
    if not all(engine.containerd_store for engine in facts.dockers):
        notes += _unspeakable(plan)
    return Proposal(tuple(changes), restarts(facts, changes), tuple(notes))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Where each engine looks for the registry's CA, and whether ours is there."""
    if not facts.dockers:
        return (Explained(PART, "certs.d", False, "there is no Docker Engine here"),)
    found: list[Explained] = []
    for engine in facts.dockers:
        who = f"the rootless engine of {engine.home}" if engine.home else "the engine"
        problem = _out_of_reach(facts.tree, engine)
        if problem:
            found.append(Explained(PART, "certs.d", False, problem))
            continue
        place = f"{engine.certs}/{plan.registry.name}"
        try:
            changes = _ca_files(facts.tree, engine, plan.registry, {})
        except RefusedError as refusal:
            found.append(Explained(PART, "certs.d", False, f"{who}: {refusal}"))
            continue
        what = "the pair" if changes and client_files.is_one(changes[0].path) else "the CA"
        why = f"{what} comes into {changes[0].path}" if changes else f"a file in {place} has {what}"
        needed = not plan.registry.plain_http
        found.append(
            Explained(PART, "certs.d", needed, f"{who}: {why}; read at every pull, no restart")
        )
        if engine.containerd_store and plan.mirrors:
            why = f"{who}: containerd's image store asks mirrors by hosts.toml in {engine.certs}"
            found.append(Explained(PART, "hosts.toml", True, why))
        for key in _wanted(plan, engine):
            found.append(
                Explained(PART, key, True, f"{who}: {key} in {engine.config}, taken up at a reload")
            )
    return tuple(found)


def there(facts: Facts) -> bool:
    """Whether an engine is on the node, at work or not."""
    return bool(facts.dockers)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without our certificates, or without our items of daemon.json."""
    if owned.path.endswith("/hosts.toml"):
        from agent.formats import hosts_toml

        return hosts_toml.without_ours(owned.path, content)
    if client_files.is_one(owned.path):
        return client_files.strip(owned, content)
    if not owned.path.endswith(".json"):
        return strip_certificates(owned, content)
    before = _parsed_or_empty(owned.before)
    codec = encoding(content)
    text = content.decode(codec, "replace")
    insecure = ((INSECURE, one.name) for one in registry.spellings)
    for key, item in ((MIRRORS, registry.url), *insecure):
        listed = before.get(key)
        if isinstance(listed, list) and item in listed:
            continue
        try:
            text = json_edit.without_item(text, key, item, keep_empty=key in before)
        except ValueError:
            return content
    rest = text.encode(codec)
    return None if owned.before is None and not _parsed_or_empty(rest) else rest


def forgotten(facts: Facts, registry: Registry) -> tuple[Change, ...]:
    """Without any memory: the file that only we name so, and one with the plan's CA alone."""
    changes: list[Change] = []
    folders = (f"{one.certs}/{name.name}" for one in facts.dockers for name in registry.spellings)
    for folder in folders:
        for name in facts.tree.names(folder):
            file = facts.tree.read(f"{folder}/{name}")
            just_ours = registry.ca is not None and file.content == registry.ca_bytes
            if name == BESIDE or (name.endswith(".crt") and just_ours):
                changes += change(PART, file, None)
        changes += client_files.forgotten(PART, facts.tree, folder)
    return tuple(changes)


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """A reload of the engines whose daemon.json changed."""
    paths = {one.path for one in changes if one.part == PART}
    return tuple(
        f"{RELOAD}{unit_of(PART, engine.unit)}"
        if not engine.unit.startswith("snap.")
        else engine.unit
        for engine in facts.dockers
        if engine.config in paths and engine.running and not engine.home
    )


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull by each engine that runs."""
    return tuple(
        Proof("docker", engine.socket, engine.unit, engine.home)
        for engine in facts.dockers
        if engine.running
    )


def further(facts: Facts, plan: Plan) -> tuple[Proof, ...]:
    """TLS with the CA files that an engine reads, if it verifies nothing at the registry's address.

    That is so on the registry's own host: names that lead to 127/8 are asked without verifying
    (measured: docs/runtimes.md), so its pull shows that it can pull and nothing of its trust.
    """
    if plan.registry.plain_http:
        return ()
    return tuple(
        Proof(
            "files", PART, reads=(f"{engine.certs}/{registry.name}", *BUNDLES), name=registry.name
        )
        for engine in facts.dockers
        if engine.running
        for registry in plan.registry.spellings
        if any(one in LOOPBACK for one in _unverified(facts, plan, engine, registry))
    )


def doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    """An engine that is told to verify nothing: its pull shows nothing, and TLS is not its own."""
    if plan.registry.plain_http:
        return ()
    found = []
    for engine in facts.dockers if not further(facts, plan) else ():
        for registry in plan.registry.spellings if engine.running else ():
            for one in _unverified(facts, plan, engine, registry):
                found.append(
                    f"insecure-registries has {one}: Docker does not verify the certificate of "
                    f"{registry.name}; take it out of {engine.config}, then reload Docker"
                )
    return tuple(found)


def _unverified(facts: Facts, plan: Plan, engine: Docker, registry: Registry) -> list[str]:
    """Which entries make an engine ask a registry without verifying."""
    given = plan.registry.address if "hosts" in plan.parts else None
    addresses = {given} if given else facts.names.addresses(registry.host)
    networks = {one: _network(one) for one in engine.unverified}
    return [
        one
        for one, network in networks.items()
        if one == registry.name
        or (network and any(ipaddress.ip_address(address) in network for address in addresses))
    ]


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _ca_files(tree: Tree, engine: Docker, registry: Registry, owned: Ledger) -> tuple[Change, ...]:
    """The CA, and the pair, in the engine's folder for a registry; nothing for one without TLS."""
    if registry.plain_http:
        return ()
    place = f"{engine.certs}/{registry.name}"
    folder_pairs.require_whole(tree, place, owned, by_containerd=engine.containerd_store)
    authority = certificate_file(PART, tree, place, registry, owned)
    return (*authority, *client_files.in_folder(PART, tree, place, registry, owned))


def _out_of_reach(tree: Tree, engine: Docker) -> str:
    """Why a rootless engine's folder is not for root to write into, or an empty string.

    A user can make a link of any folder at home; root must not follow one out of it.
    """
    if not engine.home:
        return ""
    config = engine.certs.rpartition("/docker/")[0]
    if not tree.exists(config):
        return f"docker: the rootless engine of {engine.home} has no {config}: mkdir"
    home = tree.read(engine.home).target
    for path in (engine.certs, engine.config):
        if not tree.read(path).target.startswith(f"{home}/"):
            return f"docker: {path} leads out of {engine.home}; root does not follow a user's link"
    return ""


def _wanted(plan: Plan, engine: Docker) -> dict[str, list[str]]:
    """What daemon.json must list, by key."""
    wanted: dict[str, list[str]] = {}
    if plan.registry.plain_http:
        wanted[INSECURE] = [registry.name for registry in plan.registry.spellings]
    # Its mirrors are asked under the same path: moby's registry/config.go refuses one with a path.
    plain = any(mirror.of == HUB and not mirror.path for mirror in plan.mirrors)
    if plain and not engine.containerd_store:
        wanted[MIRRORS] = [plan.registry.url]
    return wanted


def _unspeakable(plan: Plan) -> list[str]:
    """What of the plan Docker has no words for."""
    notes = []
    others = [mirror.of for mirror in plan.mirrors if mirror.of != HUB]
    if others:
        notes.append(f"docker: it can mirror {HUB} alone, not {', '.join(others)}")
    below = [mirror.place(plan.registry) for mirror in plan.mirrors if mirror.of == HUB]
    if below and below[0] != plan.registry.name:
        return [
            *notes,
            f"docker: its mirror cannot take a path, so {below[0]} is not asked for images of "
            f"{HUB}; containerd's image store can, or nodes.mirror_path: ''",
        ]
    if any(mirror.of == HUB and not mirror.fallback for mirror in plan.mirrors):
        notes.append(f"docker: it falls back to {HUB} in any case")
    if any(mirror.of == HUB for mirror in plan.mirrors) and plan.verify and plan.verify.username:
        notes.append(
            f"docker: it does not send a login to a mirror of {HUB}; reading must be allowed"
        )
    return notes


def _hosts_files(tree: Tree, engine: Docker, plan: Plan, owned: Ledger) -> Iterator[Change]:
    """A mirrored registry's hosts.toml, for an engine that pulls by containerd's code.

    It gives the mirrors of daemon.json the certificates of docker.io, not the mirror's own
    (measured with 28.5; ``RegistryHosts`` in moby's daemon/hosts.go).
    """
    from agent.formats import hosts_toml

    for mirror in plan.mirrors if engine.containerd_store else ():
        file = tree.read(f"{engine.certs}/{mirror.of}/hosts.toml")
        there = readable(file)
        ca = _trusted_file(tree, f"{engine.certs}/{plan.registry.name}", plan.registry, owned)
        place = f"{engine.certs}/{plan.registry.name}"
        pair = client_files.chosen(tree, place, plan.registry, owned)
        ours = hosts_toml.mirror(plan.registry, mirror, ca, pair)
        mine = owned.get(file.path)
        if there is not None and there != ours and not (mine is not None and there == mine.after):
            raise RefusedError(
                "mirror-foreign",
                f"{file.path} says already where images of {mirror.of} are asked for",
                cause="another tool configured that registry here",
                cure=f'add [host."{plan.registry.url}"] to it, or move it away',
            )
        yield from change(PART, file, ours)


def _trusted_file(tree: Tree, folder: str, registry: Registry, owned: Ledger) -> str:
    """The file that has the CA, or will have it."""
    if registry.plain_http:
        return ""
    coming = certificate_file(PART, tree, folder, registry, owned)
    if coming:
        return coming[0].path
    wanted = certificates(registry.ca_bytes)
    names = [name for name in tree.names(folder) if name.endswith(".crt")]
    paths = [f"{folder}/{name}" for name in names]
    return next(path for path in paths if wanted <= certificates(tree.read(path).content))


def _daemon_json(tree: Tree, engine: Docker, plan: Plan) -> tuple[Change, ...]:
    wanted = _wanted(plan, engine)
    if not wanted:
        return ()
    file = tree.read(engine.config)
    codec = encoding(file.content or b"")
    if codec != "utf-8" and not _reads_marks(engine):
        why = f"Docker {engine.version} does not read a file with a byte order mark"
        raise _not_json(file, why)
    text = _text(file)
    for key, items in wanted.items():
        flag = _FLAGS[key]
        if option(engine.flags, flag) is not None:
            raise RefusedError(
                "daemon-flag",
                f"dockerd is started with {flag}; it refuses the same setting in {file.path}",
                cause=f"{key} is set on its command line",
                cure=f"move {flag} from the unit into {file.path}, then run again",
            )
        for item in items:
            try:
                text = json_edit.with_item(text, key, item)
            except ValueError as problem:
                raise _not_json(file, str(problem)) from None
    return change(PART, file, text.encode(codec))


def _reads_marks(engine: Docker) -> bool:
    """Whether dockerd takes a byte order mark in its file: from 23.0 on (moby#44777).

    Measured: 20.10 does not start, 26.1 and 28.5 do.
    """
    major = engine.version.partition(".")[0]
    return not major.isdigit() or int(major) >= 23


def _text(file: File) -> str:
    content = readable(file)
    try:
        return (content or b"").decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise _not_json(file, str(problem)) from None


def _not_json(file: File, why: str) -> RefusedError:
    return RefusedError(
        "config-not-json",
        f"{file.path} cannot be edited: {why}",
        cause="it is not the JSON object that dockerd reads",
        cure=f"correct {file.path} (dockerd --validate --config-file {shlex.quote(file.path)}), "
        "then run again",
    )


def _parsed_or_empty(content: bytes | None) -> dict[str, object]:
    try:
        return json_edit.parse((content or b"").decode("utf-8-sig"))
    except ValueError:
        return {}
