"""k3s and RKE2: ``registries.yaml``, from which they write their containerd's files at each start.

Both ``mirrors`` and ``configs`` name the registry: k3s 1.27.12, 1.28.8 and 1.29.3 heed
``configs.*.tls`` of mirror endpoints alone (https://github.com/k3s-io/k3s/issues/9839).
https://docs.k3s.io/installation/private-registry
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from agent.edit import yaml_block
from agent.edit.change import Change, Ledger, Owned, change, readable
from agent.edit.utf8 import encoding
from agent.facts import Facts, Runtime
from agent.formats import client_files, plain
from agent.formats.authorities import certificates, strip_certificates
from agent.formats.proposal import Explained, Proof, Proposal, unit_of
from agent.node.tree import File, Tree
from agent.runtimes import k3s_config
from agent.runtimes.k3s_config import PullConfig
from agent.wire.faults import RefusedError
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import Declaration, Kind

RUNTIME = Declaration(
    "k3s",
    place=5,
    kinds=(
        Kind("k3s", ("k3s",), ("k3s.service", "k3s-agent.service"), daemon="k3s",
             verbs=("server", "agent"), tells=("K3S_CONFIG_FILE", "K3S_DATA_DIR")),
        Kind("rke2", ("rke2",), ("rke2-server.service", "rke2-agent.service"), daemon="rke2",
             verbs=("server", "agent"), tells=("RKE2_CONFIG_FILE", "RKE2_DATA_DIR")),
    ),
    socket="/run/k3s/containerd/containerd.sock",
    kubelet=True,
    containerds=("/var/lib/rancher/", "/run/k3s/"),
)  # fmt: skip
PART = RUNTIME.name
KINDS = tuple(kind.name for kind in RUNTIME.kinds)
DOCKER = "/run/docker.sock"
# Below its data folder: the hosts.toml files that it writes from registries.yaml at each start.
CERTS_D = "agent/etc/containerd/certs.d"
MARK = "# moorage"


@dataclass(frozen=True)
class _FoundProduct:
    """One of the two on this node, what it is told, and its file."""

    runtime: Runtime
    told: PullConfig
    path: str
    folder: str


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """CA and pair beside registries.yaml, the keys that name them in the file, one restart."""
    found = _found(facts)
    if not found:
        return Proposal(absent="there is no k3s or RKE2 here")
    ours = [one for one in found if one.told.own]
    if not ours:
        return Proposal(absent=_whose(found[0]), there=True)
    changes: list[Change] = []
    for one in ours:
        _refuse_template(facts.tree, one)
        changes += _authorities(facts.tree, one, plan)
        changes += _edited(facts.tree, one, plan, owned)
    return Proposal(tuple(changes), restarts(facts, changes), tuple(_unspeakable(plan)))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Which file, and whether it can be edited."""
    if not any(kind in facts.others for kind in KINDS):
        return (Explained(PART, "registries.yaml", False, "there is no k3s or RKE2 here"),)
    try:
        found = _found(facts)
        proposal = propose(facts, plan, {})
    except RefusedError as problem:
        return (Explained(PART, "refused", True, f"{problem} ({problem.code})"),)
    why = proposal.absent or (
        f"{found[0].path} {'needs' if proposal.changes else 'has'} the registry; "
        "it is read only at the start"
    )
    return (Explained(PART, "registries.yaml", not proposal.absent, why),)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without our lines; gone where nothing else is in it."""
    if client_files.is_one(owned.path):
        return client_files.strip(owned, content)
    if owned.path.endswith(".crt"):
        return strip_certificates(owned, content)
    codec = encoding(content)
    text = content.decode(codec, "surrogateescape")
    rest = yaml_block.without(text, f"{MARK} {registry.name}")
    rest = yaml_block.without_empty(rest, MARK)  # made for one registry, used by another to the end
    before = (owned.before or b"").decode("utf-8", "replace").splitlines()
    all_ours = all(f" {MARK} " in line for line in before)  # another registry's, gone by now
    return None if not rest.strip() and all_ours else rest.encode(codec, "surrogateescape")


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """The service of each whose files changed."""
    paths = [one.path for one in changes if one.part == PART]
    return tuple(
        unit_of(one.runtime.name, one.runtime.unit)
        for one in _found(facts, strictly=False)
        if one.runtime.running
        and any(path == one.path or path.startswith(f"{one.folder}/") for path in paths)
    )


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A pull by whoever pulls for it: the containerd inside, another runtime, or Docker."""
    found = []
    for one in _found(facts, strictly=False):
        if not one.runtime.running or not one.told.agent:
            continue
        if one.told.docker:
            found.append(Proof("docker", one.told.endpoint or DOCKER))
        elif one.told.endpoint:
            found.append(Proof("cri", one.told.endpoint))
        else:
            unit = unit_of(one.runtime.name, one.runtime.unit)
            found.append(Proof("cri", RUNTIME.socket, unit, roots=(f"{one.told.data}/{CERTS_D}",)))
    return tuple(found)


def doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    """registries.yaml that tells it to verify nothing; a config.yaml that is not understood."""
    try:
        each = _found(facts)
    except RefusedError as problem:
        return (str(problem),)
    found = []
    for one in each:
        for registry in (
            plan.registry.spellings if one.told.own and not plan.registry.plain_http else ()
        ):
            try:
                text = (facts.tree.read(one.path).content or b"").decode("utf-8")
                path = ("configs", registry.name, "tls", "insecure_skip_verify")
                said = yaml_block.scan(text).value(*path)
            except ValueError:
                continue
            if (said or "").lower() in ("true", "yes", "on"):
                found.append(
                    f"{one.path} has insecure_skip_verify for {registry.name}: no certificate is "
                    "verified there; take it out"
                )
    return tuple(found)


def _whose(one: _FoundProduct) -> str:
    """Who pulls for one whose own containerd does not."""
    name, told = one.runtime.name, one.told
    if not told.agent:
        return f"{name} runs with disable-agent: it pulls nothing"
    if told.docker:
        return f"{name} is set to use Docker (--docker): the docker part takes care of that"
    return f"{name} uses the runtime at {told.endpoint}: that one's own part looks after it"


def _refuse_template(tree: Tree, one: _FoundProduct) -> None:
    """A template that leaves registries.yaml out: a restart would bring nothing."""
    path, lacks = k3s_config.template(tree, one.told)
    if lacks:
        raise RefusedError(
            "k3s-template",
            f"{path} takes nothing over from {one.path}: no registry set there would count",
            cause="it has neither the registries' part nor k3s's own template in it",
            cure=f"add to {path}: {lacks}; then run again",
        )


def _found(facts: Facts, *, strictly: bool = True) -> list[_FoundProduct]:
    """Both, where they are. ``strictly``: what is not understood is refused, not left out."""
    found = []
    for kind in KINDS:
        runtime = facts.others.get(kind)
        if runtime is not None:
            folder = f"/etc/rancher/{kind}"
            try:
                told = k3s_config.read(facts.tree, runtime)
            except RefusedError:
                if strictly:
                    raise
                told = PullConfig(False, "", f"{folder}/registries.yaml", "")
            found.append(_FoundProduct(runtime, told, told.registries, f"{folder}/moorage"))
    return found


def _authorities(tree: Tree, one: _FoundProduct, plan: Plan) -> list[Change]:
    if plan.registry.plain_http:
        return []
    file = tree.read(_authority(one, plan.registry))
    same = certificates(file.content) == certificates(plan.registry.ca_bytes)
    authority = () if same else change(PART, file, plan.registry.ca_bytes)
    stem = _stem(plan.registry)
    return [*authority, *client_files.named(PART, tree, one.folder, stem, plan.registry)]


def _authority(one: _FoundProduct, registry: Registry) -> str:
    return f"{one.folder}/{_stem(registry)}.crt"


def _stem(registry: Registry) -> str:
    return registry.name.replace(":", "_")


def _edited(tree: Tree, one: _FoundProduct, plan: Plan, owned: Ledger) -> tuple[Change, ...]:
    file = tree.read(one.path)
    content = readable(file) or b""
    codec = encoding(content)
    try:
        document = yaml_block.scan(content.decode(codec))
        mark = f"{MARK} {plan.registry.name}"
        wanted = _authority(one, plan.registry)
        pair = client_files.paths(one.folder, _stem(plan.registry))
        for registry in plan.registry.spellings:
            document = _with_registry(document, tree, file, wanted, registry, mark)
            document = _with_pair(document, tree, file, pair, registry, mark)
        for mirror in plan.mirrors:
            document = _with_endpoint(document, mirror.of, mirror.url(plan.registry), mark)
    except UnicodeDecodeError as problem:
        raise _refused(file, f"it is not UTF-8 ({problem})") from None
    except yaml_block.Unsafe as problem:
        raise _refused(file, str(problem)) from None
    gone: tuple[Change, ...] = ()
    if plan.registry.client is None and pair[0] not in document.text:
        gone = client_files.withdrawn(PART, tree, one.folder, owned, (_stem(plan.registry),))
    # Logins stand in such files; whoever adds one to ours finds it closed.
    return (*change(PART, file, document.text.encode(codec), mode=0o600), *gone)


def _with_registry(
    document: yaml_block.Document,
    tree: Tree,
    file: File,
    wanted: str,
    registry: Registry,
    mark: str,
) -> yaml_block.Document:
    asked = document.items("mirrors", registry.name, "endpoint")
    if asked and all(plain.asks(url, registry) for url in asked):
        plain.refuse([file], registry)
    if not document.has("mirrors", registry.name):
        document = _with_endpoint(document, registry.name, registry.url, mark)
    if registry.plain_http:
        return document
    said = document.value("configs", registry.name, "tls", "ca_file")
    if said is None:
        leaf = [f"ca_file: {json.dumps(wanted)}"]
        path = ("configs", registry.name, "tls")
        return document.with_keys(path, leaf, mark)
    held = certificates(tree.read(said).content)
    if said != wanted and not certificates(registry.ca_bytes) <= held:
        raise RefusedError(
            "registries-yaml-foreign",
            f"{file.path} names another CA for {registry.name}: {said}",
            cause="someone else configured this registry here",
            cure=f"put the CA into {said}, or take ca_file out of {file.path}, then run again",
        )
    return document


def _with_pair(
    document: yaml_block.Document,
    tree: Tree,
    file: File,
    wanted: tuple[str, str],
    registry: Registry,
    mark: str,
) -> yaml_block.Document:
    """The document with the client's certificate and key; without ours if there are none."""
    path = ("configs", registry.name, "tls")
    leaf = [f"{key}: {json.dumps(one)}" for key, one in zip(("cert_file", "key_file"), wanted)]
    if registry.client is None:
        return yaml_block.scan(yaml_block.without_lines(document.text, leaf, mark))
    said = document.value(*path, "cert_file")
    if said == wanted[0]:
        return document
    if said is not None:
        key = document.value(*path, "key_file") or ""
        client_files.require_same(tree, (said, key), registry, file.path)
        return document
    return document.with_keys(path, leaf, mark)


def _with_endpoint(
    document: yaml_block.Document, of: str, url: str, mark: str
) -> yaml_block.Document:
    there = document.items("mirrors", of, "endpoint")
    if url in there:
        return document
    path: tuple[str, ...] = ("mirrors", of, "endpoint")
    if document.has(*path) and not there:
        raise yaml_block.Unsafe(f"mirrors.{of}.endpoint is not a list")
    return document.with_keys(path, [f'- "{url}"'], mark)


def _unspeakable(plan: Plan) -> list[str]:
    firm = [mirror.of for mirror in plan.mirrors if not mirror.fallback]
    if not firm:
        return []
    return [
        f"k3s: it falls back to {', '.join(firm)} unless it is started with "
        "--disable-default-registry-endpoint"
    ]


def _refused(file: File, why: str) -> RefusedError:
    return RefusedError(
        "yaml-not-understood",
        f"{file.path} is written in a way that cannot be edited safely: {why}",
        cause="this agent edits only plain block style, and guesses nothing",
        cure=f"write that part of {file.path} with one key per line, or add the registry to it by "
        "hand",
    )
