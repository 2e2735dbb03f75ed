"""BuildKit: ``[registry."host"]`` in buildkitd.toml, read at the start of buildkitd alone.

https://github.com/moby/buildkit/blob/master/docs/buildkitd.toml.md and ``RegistryConfig`` in its
util/resolver/config: ``ca``, ``mirrors``, ``http``, ``tlsconfigdir`` (a folder of ``*.cert`` with
their ``*.key``; loadTLSConfig in its util/resolver). Each line added ends with our mark; the result
is parsed, and must say what it said before and ours, nothing else.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from agent.edit import toml_edit
from agent.edit.change import Change, Ledger, Owned, change, readable
from agent.edit.toml import TomlError, at, parse
from agent.facts import Facts
from agent.facts.daemons import option
from agent.formats import client_files
from agent.formats.authorities import certificates, strip_certificates
from agent.formats.proposal import Explained, Proof, Proposal, unit_of
from agent.node.tree import File
from agent.wire.faults import RefusedError
from agent.wire.plan import Plan, Registry
from agent.wire.runtimes.declaration import FROM, Declaration, Kind

RUNTIME = Declaration(
    "buildkit",
    place=8,
    kinds=(
        Kind("buildkit", ("buildkitd",), ("buildkit.service", "buildkitd.service"),
             daemon="buildkitd", client="buildctl"),
    ),
    socket="unix:///run/buildkit/buildkitd.sock",
    proves="buildctl",
    by_hand="buildctl build, from a Dockerfile of FROM",
    certificates="/etc/buildkit",
)  # fmt: skip
PART = RUNTIME.name
CONFIG = "/etc/buildkit/buildkitd.toml"
FOLDER = "/etc/buildkit/moorage"
MARK = "# moorage"


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """CA and pair beside buildkitd.toml, the table that names them, one restart."""
    found = facts.others.get(PART)
    if found is None:
        return Proposal(absent="there is no BuildKit here")
    changes: list[Change] = []
    if not plan.registry.plain_http:
        file = facts.tree.read(_authority(plan.registry))
        if certificates(file.content) != certificates(plan.registry.ca_bytes):
            changes += change(PART, file, plan.registry.ca_bytes)
        place = _presented(plan.registry)
        changes += client_files.in_folder(PART, facts.tree, place, plan.registry, owned)
    config = facts.tree.read(option(found.argv, "--config") or CONFIG)
    changes += change(PART, config, _edited(config, facts, plan).encode("utf-8"))
    firm = [mirror.of for mirror in plan.mirrors if not mirror.fallback]
    notes = (f"buildkit: it falls back to {', '.join(firm)} in any case",) if firm else ()
    return Proposal(tuple(changes), restarts(facts, changes), notes)


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """Whether its file needs the table."""
    if PART not in facts.others:
        return (Explained(PART, "buildkitd.toml", False, "there is no BuildKit here"),)
    try:
        needs = bool(propose(facts, plan, {}).changes)
    except RefusedError as problem:
        return (Explained(PART, "refused", True, f"{problem} ({problem.code})"),)
    why = "needs the registry's table; one restart" if needs else "has the registry's table"
    return (Explained(PART, "buildkitd.toml", True, f"it {why}"),)


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """The file without our lines. A header of ours that others put keys under stays, unmarked."""
    if client_files.is_one(owned.path):
        return client_files.strip(owned, content)
    if owned.path.endswith(".crt"):
        return strip_certificates(owned, content)
    lines = content.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    mark = f"{MARK} {registry.name}"
    kept: list[str] = []
    for line in reversed(lines):
        if not line.rstrip().endswith(mark):
            kept.append(line)
        elif line.lstrip().startswith("[") and _has_keys(kept):
            kept.append(line.replace(f" {mark}", ""))
    text = "".join(reversed(kept))
    gone = owned.before is None and not text.strip()
    return None if gone else text.encode("utf-8", "surrogateescape")


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """buildkitd, if its file or the CA changed."""
    found = facts.others.get(PART)
    changed = any(one.part == PART for one in changes)
    if not changed or found is None or not found.running:
        return ()
    return (unit_of(PART, found.unit),)


def proofs(facts: Facts) -> tuple[Proof, ...]:
    """A build of nothing but the image, by buildctl."""
    found = facts.others.get(PART)
    if found is None or not found.running or not found.client:
        return ()
    told = option(found.argv, "--addr") or ""
    address = told if told.startswith(("unix://", "tcp://")) else RUNTIME.socket
    unit = unit_of(PART, found.unit)
    return (Proof(RUNTIME.proves, address, unit, command=command(found.client, address)),)


def command(program: str, address: str) -> tuple[str, ...]:
    """A build of nothing but the image, which buildkitd asks the registry for anew.

    https://github.com/moby/buildkit/blob/master/frontend/dockerfile/docs/reference.md and
    ``image-resolve-mode`` in its frontend/dockerui/config.go.
    """
    return (
        program, "--addr", address, "build", "--progress", "plain",
        "--frontend", "dockerfile.v0", "--opt", "image-resolve-mode=pull",
        "--local", f"context={FROM}", "--local", f"dockerfile={FROM}",
    )  # fmt: skip


def doubts(facts: Facts, plan: Plan) -> tuple[str, ...]:
    """No program to pull with, or a table that tells it to verify nothing."""
    found = facts.others.get(PART)
    if found is None or not found.running:
        return ()
    config = facts.tree.read(option(found.argv, "--config") or CONFIG)
    try:
        tables = parse(config.content or b"")
    except TomlError:
        tables = {}
    names = [] if plan.registry.plain_http else [one.name for one in plan.registry.spellings]
    told = [name for name in names if at(tables, "registry", name, "insecure") is True]
    words = [f"{config.path} has insecure for {name}: take it out" for name in told]
    return tuple(words if found.client else [*words, "buildctl, which could pull, is not here"])


def _has_keys(following: list[str]) -> bool:
    """Whether what comes next (nearest last) belongs to the table above it."""
    for line in reversed(following):
        bare = line.strip()
        if bare and not bare.startswith("#"):
            return not bare.startswith("[")
    return False


def _authority(registry: Registry) -> str:
    return f"{FOLDER}/{registry.name.replace(':', '_')}.crt"


def _presented(registry: Registry) -> str:
    """The folder whose every pair is presented to the registry."""
    return f"{FOLDER}/{registry.name.replace(':', '_')}"


def _edited(config: File, facts: Facts, plan: Plan) -> str:
    content = readable(config)
    try:
        text = (content or b"").decode("utf-8")
        expected = parse(content or b"")
        mark = f"{MARK} {plan.registry.name}"
        for name, key, value in _wanted(plan):
            said = at(expected, "registry", name, key)
            if said == value or _is_enough(facts, plan.registry, key, said, value):
                continue
            if said is not None:
                raise _foreign(config, name, key)
            text = _with_value(text, name, f"{key} = {json.dumps(value)}", mark)
            expected = _told(expected, name, key, value)
        fits = parse(text.encode("utf-8")) == expected
    except (TomlError, ValueError) as problem:
        raise _refused(config, str(problem)) from None
    if not fits:
        raise _refused(config, "its tables are not written as [tables]")
    return text


def _wanted(plan: Plan) -> list[tuple[str, str, Any]]:
    """Registry, key and value of what must stand in the file."""
    wanted: list[tuple[str, str, Any]] = []
    for registry in plan.registry.spellings:
        if registry.plain_http:
            wanted.append((registry.name, "http", True))
        else:
            wanted.append((registry.name, "ca", [_authority(plan.registry)]))
        if registry.client is not None:
            wanted.append((registry.name, "tlsconfigdir", [_presented(plan.registry)]))
    wanted += [(mirror.of, "mirrors", [mirror.place(plan.registry)]) for mirror in plan.mirrors]
    return wanted


def _is_enough(facts: Facts, registry: Registry, key: str, said: object, wanted: Any) -> bool:
    """Whether another's value does what ours would."""
    if not isinstance(said, list):
        return False
    if key in ("mirrors", "tlsconfigdir"):
        return set(wanted) <= set(said)
    held = [certificates(facts.tree.read(path).content) for path in said if isinstance(path, str)]
    return certificates(registry.ca_bytes) <= frozenset().union(*held)


def _with_value(text: str, name: str, line: str, mark: str) -> str:
    """One more line in a registry's table, which is added at the end where it is missing."""
    layout = toml_edit.scan(text)
    newline = layout.newline
    header = layout.header(("registry", name))
    if header is not None:
        before, after = text[: header.end], text[header.end :]
        if not before.endswith("\n"):
            before += newline
        return f"{before}  {line} {mark}{newline}{after}"
    if text and not text.endswith("\n"):
        text += newline
    return f'{text}[registry."{name}"] {mark}{newline}  {line} {mark}{newline}'


def _told(tables: dict[str, Any], name: str, key: str, value: object) -> dict[str, Any]:
    told = copy.deepcopy(tables)
    told.setdefault("registry", {}).setdefault(name, {})[key] = value
    return told


def _foreign(config: File, name: str, key: str) -> RefusedError:
    return RefusedError(
        "buildkitd-foreign",
        f'{config.path} says something else for {key} in [registry."{name}"]',
        cause="someone else configured this registry here",
        cure=f"add the registry there, or take {key} out of it, then run again",
    )


def _refused(config: File, why: str) -> RefusedError:
    return RefusedError(
        "config-not-understood",
        f"{config.path} cannot be edited safely: {why}",
        cause="only a rewrite of other lines would do",
        cure=f"correct {config.path}, or add the registry to it by hand",
    )
