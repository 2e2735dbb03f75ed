"""Proxies: a runtime told to ask one for everything asks it for the registry too.

Go (golang.org/x/net/http/httpproxy) leaves a host out where NO_PROXY names it, a domain above it,
or ``*``. Said as a note with the cure; with ``fix_proxy`` a drop-in gives the service a longer
NO_PROXY. The drop-in names a file of its own, since any ``Environment=`` gives way to an
``EnvironmentFile=`` (systemd.exec(5)), and sorts behind the usual names: it has the last word.
Of several registries a comment each says which words are there for which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.edit import json_edit
from agent.edit.change import HEADER, Change, Ledger, Owned, change, sharing
from agent.facts import Facts, Proxied
from agent.facts.proxies import OURS, folder
from agent.formats.proposal import Explained, Proposal
from agent.wire.plan import Plan, Registry

PART = "proxy"
_FILE = "zz-moorage-no-proxy.env"
_CLAIM = re.compile(r"^# ([a-z0-9.-]+(?::\d+)?): (.*)$", re.M)
_LIST = re.compile(r'^NO_PROXY="(.*)"$', re.M)


def propose(facts: Facts, plan: Plan, owned: Ledger) -> Proposal:
    """Per service that would ask a proxy: a note, or a drop-in."""
    changes: list[Change] = []
    notes: list[str] = []
    for one in _asking(facts, plan, owned):
        if not plan.options.fix_proxy:
            notes.append(_note(one, plan.registry))
            continue
        changes += _drop_in(facts, one, plan.registry, owned)
    notes += _by_daemon_json(facts, plan)
    return Proposal(tuple(changes), restarts(facts, changes), tuple(notes))


def explain(facts: Facts, plan: Plan) -> tuple[Explained, ...]:
    """The services behind a proxy, and whether they leave the registry out."""
    asking = _asking(facts, plan, {})
    return tuple(
        Explained(
            PART,
            "drop-in" if one in asking and plan.options.fix_proxy else "note",
            one in asking,
            _note(one, plan.registry)
            if one in asking
            else f"{one.unit} has a proxy, and leaves {plan.registry.host} out of it",
        )
        for one in facts.proxied
    )


def strip(owned: Owned, content: bytes, registry: Registry) -> bytes | None:
    """Both files are ours alone; what another registry has in one stays."""
    claims = _claims(content)
    mine = claims.pop(registry.name, ())
    if not claims:
        return None
    told = {word for words in claims.values() for word in words}
    words = [one for one in _bypass(content) if one.strip() not in mine or one.strip() in told]
    return _environment(words, claims)


def shared(item: Owned) -> bool:
    """Whether it is the file that names the list, which goes with the last registry."""
    return item.path.endswith(f"/{OURS}")


def restarts(facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """The services whose environment changed: it is given at the start alone."""
    running = {one.unit for one in facts.dockers if one.running}
    running |= {one.unit for one in facts.others.values() if one.running}
    for found in facts.containerds:
        if found.running and found.unit is not None:
            running.add(found.unit.name)
    folders = {one.path.rpartition("/")[0] for one in changes if one.part == PART}
    return tuple(sorted(unit for unit in running if unit and folder(unit) in folders))


def leaves_out(bypass: str, host: str, port: int) -> bool:
    """Whether a NO_PROXY leaves a host out of the proxy, by Go's rules."""
    for word in bypass.lower().split(","):
        entry, colon, its_port = word.strip().partition(":")
        if not entry or (colon and its_port != str(port)):
            continue
        entry = entry[1:] if entry.startswith("*.") else entry
        name = entry.lstrip(".")
        if entry == "*" or host.endswith(f".{name}") or (host == name and entry[0] != "."):
            return True
    return False


def _asking(facts: Facts, plan: Plan, owned: Ledger) -> list[Proxied]:
    registry = plan.registry
    return [
        one
        for one in facts.proxied
        if (one.http if registry.plain_http else one.https)
        and not _leaves_all_out(_without_others(one, owned), registry)
    ]


def _leaves_all_out(bypass: str, registry: Registry) -> bool:
    return all(leaves_out(bypass, each.host, each.port) for each in registry.each)


def _without_others(one: Proxied, owned: Ledger) -> str:
    """The NO_PROXY that one registry can rely on: what is there for others alone goes with them."""
    path = f"{folder(one.unit)}/{_FILE}"
    return one.without_us if path not in owned and sharing(owned, path) else one.bypass


def _drop_in(facts: Facts, one: Proxied, registry: Registry, owned: Ledger) -> tuple[Change, ...]:
    place = folder(one.unit)
    file = facts.tree.read(f"{place}/{_FILE}")
    others = sharing(owned, file.path)
    usual = one.without_us.split(",")
    there = one.bypass if others else one.without_us
    words = [word for word in there.split(",") if word.strip()]
    words += [each.host for each in registry.each if not leaves_out(there, each.host, each.port)]
    claims = _claims(file.content or b"") if others else {}
    told = {word for claimed in claims.values() for word in claimed}
    for name in others:  # the first one had the list for itself
        claims.setdefault(
            name,
            tuple(word for word in _bypass(file.content or b"") if word not in (*usual, *told)),
        )
    if others:
        claims[registry.name] = tuple(each.host for each in registry.each)
    ours = f"{HEADER}[Service]\nEnvironmentFile={place}/{_FILE}\n"
    return (
        *change(PART, file, _environment(words, claims)),
        *change(PART, facts.tree.read(f"{place}/{OURS}"), ours.encode()),
    )


def _environment(words: list[str], claims: Mapping[str, Sequence[str]]) -> bytes:
    quoted = ",".join(words).replace("\\", "\\\\").replace('"', '\\"')
    for_whom = "".join(f"# {name}: {' '.join(claims[name])}\n" for name in sorted(claims))
    return f'{HEADER}{for_whom}NO_PROXY="{quoted}"\n'.encode()


def _claims(content: bytes) -> dict[str, tuple[str, ...]]:
    """Which words of a list are there for which registry, if more than one is in it."""
    return {
        name: tuple(words.split())
        for name, words in _CLAIM.findall(content.decode("utf-8", "replace"))
    }


def _bypass(content: bytes) -> list[str]:
    """The words of a list that we wrote."""
    found = _LIST.search(content.decode("utf-8", "replace"))
    return re.sub(r"\\(.)", r"\1", found[1]).split(",") if found is not None else []


def _note(one: Proxied, registry: Registry) -> str:
    return (
        f"{one.unit} asks the proxy {_without_login(one.https or one.http)} for {registry.host}, "
        f"which is not in its NO_PROXY: inv nodes.trust --fix-proxy adds it"
    )


def _without_login(url: str) -> str:
    scheme, mark, rest = url.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def _by_daemon_json(facts: Facts, plan: Plan) -> list[str]:
    """Docker's own setting goes before the environment; a drop-in would not help."""
    notes = []
    for engine in facts.dockers:
        content = facts.tree.read(engine.config).content or b""
        try:
            said = json_edit.parse(content.decode("utf-8")).get("proxies")
        except ValueError:
            continue
        key = "http-proxy" if plan.registry.plain_http else "https-proxy"
        if not isinstance(said, dict) or not said.get(key):
            continue
        if not leaves_out(str(said.get("no-proxy") or ""), plan.registry.host, plan.registry.port):
            notes.append(
                f"docker asks the proxy of {engine.config} for {plan.registry.host}: add it to "
                f'"no-proxy" there, then restart Docker'
            )
    return notes
