"""What `config.toml` says of registries in tables that go, said as folders of hosts.toml.

From 2.0 on CRI reads `registry.mirrors`, but no `configs.*.tls` (measured on 2.1.9: x509, with its
own client too), and does not load with `mirrors` beside a `config_path`. So both move: what a
mirror gave stays, by the rules of ``registryEndpoints`` (internal/cri/server/images/image_pull.go),
and a CA that 2.x has ignored counts again. `configs.*.auth` stays where it is: it is read there.
A `skip_verify` that 2.x has ignored does not come back.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.edit import toml_edit
from agent.edit.change import Change, change
from agent.edit.toml import at, parse
from agent.formats import client_files, plain
from agent.formats.authorities import certificates
from agent.formats.hosts_toml import BESIDE, DEFAULT, PART
from agent.node.tree import File
from agent.runtimes.containerd import config
from agent.runtimes.containerd.state import registry_table
from agent.wire.faults import RefusedError
from agent.wire.plan import Mirror, Registry

if TYPE_CHECKING:
    from agent.runtimes.containerd import Situation

# What an image's name can begin with (``DomainRegexp`` of github.com/distribution/reference); CRI
# looks `mirrors` up by it, letter for letter, and `*` where that is not there.
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")


def folders(table: dict[str, Any], ours: tuple[Registry, ...] = ()) -> dict[str, str]:
    """The hosts.toml of each registry that the tables speak of, by the registry's name.

    One of ``ours`` that is asked by plain HTTP is asked by HTTPS there: it has TLS.
    """
    known = {one.name: one for one in ours}
    mirrors = table.get("mirrors") or {}
    configs = {
        host: said["tls"]
        for host, said in (table.get("configs") or {}).items()
        if isinstance(said, dict) and isinstance(said.get("tls"), dict)
    }
    found = {}
    for host, said in mirrors.items():
        if not _is_asked(host):
            continue
        endpoints = [_secured(str(one), known.get(host)) for one in said.get("endpoint") or []]
        found[DEFAULT if host == "*" else host] = _mirror(host, endpoints, configs)
    for host, tls in configs.items():
        lines = _tls(tls)
        if host not in found and lines and _is_asked(host) and host != "*":
            found[host] = "\n".join([f'server = "{_default(host)}"', *lines, "", "[host]", ""])
    return found


def never_asked(table: dict[str, Any]) -> list[str]:
    """What to say of tables by which no image is ever pulled: their key is no registry's name."""
    return [
        f"registry.{name}.{json.dumps(host)} applies to no image, with or without us: a registry "
        "is named only by its host and port, without a scheme or a path"
        for name in ("mirrors", "configs")
        for host in table.get(name) or {}
        if not _is_asked(host) and not (name == "configs" and host in (table.get("mirrors") or {}))
    ]


def secured(table: dict[str, Any], ours: tuple[Registry, ...]) -> list[str]:
    """What to say of our registries that a table asks by plain HTTP, and that move to HTTPS."""
    mirrors = table.get("mirrors") or {}
    return [
        f"registry.mirrors asked {one.name} by plain HTTP ({url}); it has TLS, so it is asked by "
        f"{one.url} from now on"
        for one in ours
        for url in (mirrors.get(one.name) or {}).get("endpoint") or []
        if plain.asks(str(url), one)
    ]


def asked_by_http_alone(table: dict[str, Any], registry: Registry) -> bool:
    """Whether every endpoint that a table gives a registry of ours is its own without TLS."""
    endpoints = at(table, "mirrors", registry.name, "endpoint") or []
    return bool(endpoints) and all(plain.asks(str(one), registry) for one in endpoints)


def _secured(url: str, registry: Registry | None) -> str:
    return registry.url if registry is not None and plain.asks(url, registry) else url


def require_asked(mirror: Mirror, text: str, registry: Registry, file: File) -> None:
    """Raise RefusedError where a table of others sends a registry's pulls past its mirror."""
    if at(parse(text.encode("utf-8")), "host", registry.url) is None:
        raise RefusedError(
            "mirror-foreign",
            f"{file.path} says already where images of {mirror.of} are asked for",
            cause=f"its registry.mirrors has a table of {mirror.of}",
            cure=f'put "{registry.url}" first into the endpoints of that table, then run again',
        )


def _is_asked(host: str) -> bool:
    return host == "*" or _HOST.fullmatch(host) is not None


def _mirror(host: str, endpoints: list[str], configs: dict[str, dict[str, Any]]) -> str:
    urls = [one if "://" in one else f"{_scheme(one)}://{one}" for one in endpoints]
    # CRI asks the registry itself last, unless it is among the endpoints.
    itself = next((one for one in urls if urlsplit(one).netloc == host), None)
    lines = []
    if host != "*":
        lines.append(f'server = "{itself or _default(host)}"')
    own = urlsplit(itself or _default(host)).netloc
    lines += _tls(configs.get(own, {}))
    if urls and urls[-1] == itself:
        urls.pop()
    for url in urls:
        lines += ["", f'[host."{url}"]', '  capabilities = ["pull", "resolve"]']
        if urlsplit(url).path:
            lines.append("  override_path = true")
        lines += [f"  {line}" for line in _tls(configs.get(urlsplit(url).netloc, {}))]
    return "\n".join([*lines, *([] if urls else ["", "[host]"]), ""])


def _tls(tls: dict[str, Any]) -> list[str]:
    lines = [f"ca = {json.dumps(tls['ca_file'])}"] if tls.get("ca_file") else []
    if tls.get("cert_file"):
        lines.append(f"client = {json.dumps([[tls['cert_file'], tls.get('key_file') or '']])}")
    return lines


def _default(host: str) -> str:
    host = "registry-1.docker.io" if host == "docker.io" else host
    return f"{_scheme(host)}://{host}"


def _scheme(host: str) -> str:
    name = host.split("/", maxsplit=1)[0].partition(":")[0]
    return "http" if name in ("localhost", "127.0.0.1") else "https"


def entry(situation: Situation, drafts: config.Drafts, folder: str) -> tuple[Change, ...]:
    """The files that `registry.configs.HOST.tls` names, and drafts in which it names them."""
    changes: list[Change] = []
    plan = situation.plan
    if plan.registry.plain_http or plan.mirrors:
        raise RefusedError(
            "legacy-registry-tables",
            f"{situation.found.config.path}: plain HTTP and mirrors need a `config_path`",
            cause="`registry.mirrors` or `registry.configs` is set there, and CRI would not load",
            cure="move them to hosts.toml files (containerd's docs/hosts.md), then run again",
        )
    situation.notes += never_asked(situation.layers.written)
    for registry in plan.registry.spellings:
        if asked_by_http_alone(situation.layers.written, registry):
            plain.refuse((one.file for one in situation.layers.all), registry)
        table = config.classic_table(situation.layers, registry)
        tls = at(registry_table(situation.merged), "configs", registry.name, "tls") or {}
        place = f"{folder}/{registry.name}"
        changes += _authority(situation, drafts, table, tls, f"{place}/{BESIDE}", registry)
        changes += _pair(situation, drafts, table, tls, place, registry)
    return tuple(changes)


def _authority(
    situation: Situation,
    drafts: config.Drafts,
    table: toml_edit.Keys,
    tls: dict[str, Any],
    path: str,
    registry: Registry,
) -> tuple[Change, ...]:
    there = str(tls.get("ca_file") or "")
    theirs = _ca_before_us(situation, (*table, "ca_file")) if there == path else there
    held = situation.tree.read(theirs).content if theirs else None
    wanted = registry.ca_bytes
    if there != path and certificates(wanted) <= certificates(held):
        return ()
    if held is not None:
        # One file is all that containerd reads here: another's certificates go on counting.
        wanted = held.rstrip(b"\n") + b"\n" + wanted
    if there != path:
        drafts.set(table, "ca_file", path)
    return change(PART, situation.tree.read(path), wanted)


def _pair(
    situation: Situation,
    drafts: config.Drafts,
    table: toml_edit.Keys,
    tls: dict[str, Any],
    place: str,
    registry: Registry,
) -> tuple[Change, ...]:
    cert, key = client_files.paths(place, client_files.BESIDE)
    there = str(tls.get("cert_file") or "")
    if registry.client is None:
        gone = there != cert
        if not gone:
            released = [drafts.release(table, one) for one in ("cert_file", "key_file")]
            gone = all(released)
        stems = (client_files.BESIDE,) if gone else ()
        return client_files.withdrawn(PART, situation.tree, place, situation.owned, stems)
    if there not in ("", cert):
        client_files.require_same(
            situation.tree, (there, str(tls.get("key_file") or "")), registry,
            situation.found.config.path,
        )  # fmt: skip
        return ()
    if not there:
        drafts.set(table, "cert_file", cert)
        drafts.set(table, "key_file", key)
    return client_files.named(PART, situation.tree, place, client_files.BESIDE, registry)


def _ca_before_us(situation: Situation, keys: tuple[str, ...]) -> str:
    """The CA file that another named for a registry where ours is named now."""
    layer = situation.layers.deciding(*keys[len(situation.layers.table) :])
    mine = situation.owned.get(layer.path)
    before = mine.before if mine is not None else None
    return str(at(parse(before), *keys) or "") if before is not None else ""
