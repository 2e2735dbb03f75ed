"""The folder of one registry below `config_path`: `hosts.toml` and the CA it names.

How containerd reads it is ``core/remotes/docker/config/hosts.go`` (``remotes/…`` on 1.x), measured:

- 1.x reads no hosts.toml without a `[host]` table: it logs "invalid `host` tree" and takes the
  folder's ``*.crt`` files instead. An empty `[host]` is enough, so ours has one.
- With the registry under `[host."https://…"]` alone, 1.x asks `server` again without the CA where
  an image is missing, and tells x509 in place of "not found". So ours names it as `server` only.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any, Optional
from urllib.parse import urlsplit

from agent.edit import toml_edit
from agent.edit.change import HEADER, Change, Ledger, change, readable
from agent.edit.toml import TomlError, at, parse
from agent.edit.utf8 import encoding
from agent.formats import client_files, folder_pairs, plain
from agent.formats.authorities import authority_in, certificate_file, certificates
from agent.node.tree import File, Tree
from agent.wire.faults import RefusedError
from agent.wire.plan import Mirror, Registry

PART = "containerd"
COMMENT = "# Added by Moorage; `nodes.untrust` takes it away."
CARRIED = (HEADER + "# It says what another folder or table said so far.\n").encode()
CA = "ca.crt"
BESIDE = "moorage-ca.crt"  # a name of its own beside another's files, so that it is known again
DEFAULT = "_default"
_STEMS = (client_files.USUAL, client_files.BESIDE)
Client = Optional[tuple[str, str]]  # the two files of a pair that is presented; 3.9 has no "|" here


def names(host: str) -> tuple[str, ...]:
    """The folders containerd looks for, first one first, without `_default`."""
    name, colon, port = host.rpartition(":")
    return (f"{name}_{port}_", host) if colon else (host,)


def folder(tree: Tree, roots: list[str], host: str) -> str:
    """The registry's folder: one that is there already, else a new one under the first root."""
    for root in roots:
        for name in names(host):
            if tree.exists(f"{root}/{name}"):
                return f"{root}/{name}"
    return f"{roots[0]}/{host}"


def own(registry: Registry, ca: str, client: Client = None) -> bytes:
    """The whole file: one server, itself, with its CA, and the files that are presented to it."""
    lines = [f'server = "{registry.url}"', *_tls(registry, ca, client)]
    return (HEADER + "\n".join([*lines, "", "[host]  # 1.x reads no file without it", ""])).encode()


def mirror(registry: Registry, of: Mirror, ca: str, client: Client = None) -> bytes:
    """The file of another registry whose images are asked of ours first."""
    url = of.url(registry)
    path = "override_path = true\n" if of.path else ""
    authority = "".join(f"{line}\n" for line in _tls(registry, ca, client))
    ours = "" if of.fallback else path + authority
    lines = [
        f'server = "{of.upstream if of.fallback else url}"',
        ours,
        f'[host."{url}"]',
        '  capabilities = ["pull", "resolve"]',
        *(f"  {line}" for line in (path + authority).splitlines()),
    ]
    return (HEADER + "\n".join(lines).rstrip("\n") + "\n").encode()


def _tls(registry: Registry, ca: str, client: Client) -> list[str]:
    if registry.plain_http:
        return []
    return [f'ca = "{ca}"', *([] if client is None else [f"client = {json.dumps([client])}"])]


def changes(
    tree: Tree, place: str, registry: Registry, owned: Ledger, initial: bytes | None = None
) -> tuple[Change, ...]:
    """What makes a registry's folder trust it; beside another tool's files, what fits those.

    ``initial``: what another folder gave this registry so far, where there is no file here yet.
    """
    hosts = tree.read(f"{place}/hosts.toml")
    there = readable(hosts)
    there = initial if there is None else there
    if there is None and _has_others_certificates(tree, place, owned):
        # Certificates without a hosts.toml are read as Docker reads them; a hosts.toml would end
        # that for all of them, so the CA joins them instead.
        folder_pairs.require_whole(tree, place, owned, by_containerd=True)
        authority = certificate_file(PART, tree, place, registry, owned)
        return (*authority, *client_files.in_folder(PART, tree, place, registry, owned))
    ca = f"{place}/{CA}"
    ours = own(registry, ca, _usual(place, registry))
    if there is None or _is_ours(hosts, owned, ours):
        pair = client_files.named(PART, tree, place, client_files.USUAL, registry)
        gone = () if registry.client else client_files.withdrawn(PART, tree, place, owned)
        return (*_ca_file(tree, ca, registry), *pair, *change(PART, hosts, ours), *gone)
    return _beside(tree, place, hosts, there, registry, owned, carried=initial is not None)


def _beside(
    tree: Tree,
    place: str,
    hosts: File,
    there: bytes,
    registry: Registry,
    owned: Ledger,
    *,
    carried: bool,
) -> tuple[Change, ...]:
    """What another's hosts.toml needs: our CA, and the pair, in files of names of their own."""
    found: list[Change] = []
    edited = there
    if carried or not _trusts(tree, place, hosts.path, there, registry):
        beside = f"{place}/{BESIDE}"
        found += _ca_file(tree, beside, registry)
        edited = _with_value(hosts.path, edited, registry, "ca", beside)
    if registry.client is not None and not _presents(tree, place, hosts.path, there, registry):
        stem = _stem_beside(tree, place, hosts.path, there, registry)
        found += client_files.named(PART, tree, place, stem, registry)
        pair = list(client_files.paths(place, stem))
        edited = _with_value(hosts.path, edited, registry, "client", pair)
    gone: tuple[Change, ...] = ()
    if registry.client is None:
        edited = _without_pair(tree, place, hosts.path, edited, registry)
        files = {stem: client_files.paths(place, stem)[0].encode() for stem in _STEMS}
        stems = tuple(stem for stem, cert in files.items() if cert not in edited)
        gone = client_files.withdrawn(PART, tree, place, owned, stems)
    return (*found, *change(PART, hosts, edited), *gone)


def _without_pair(tree: Tree, place: str, path: str, content: bytes, registry: Registry) -> bytes:
    """Another's hosts.toml without a pair of ours, which the plan has no more."""
    codec = encoding(content)
    text = content.decode(codec)
    for stem in _STEMS:
        files = list(client_files.paths(place, stem))
        if not client_files.is_ours(tree.read(files[1])):
            continue
        for keys, said in _levels(path, content, registry):
            if files in _listed(said.get("client")):
                text = toml_edit.release(text, COMMENT, (*keys, "client"))
        text = _without_path(text, "client", files[0])
    return text.encode(codec)


def _stem_beside(tree: Tree, place: str, path: str, content: bytes, registry: Registry) -> str:
    """The name of our pair beside another's hosts.toml: the one it names already, if it is ours."""
    usual = list(client_files.paths(place))
    named = any(
        usual in _listed(said.get("client")) for _, said in _levels(path, content, registry)
    )
    ours = client_files.is_ours(tree.read(usual[1]))
    return client_files.USUAL if named and ours else client_files.BESIDE


def pair_files(tree: Tree, place: str, registry: Registry, owned: Ledger) -> Client:
    """The files that have the pair in a registry's folder, or will have it."""
    hosts = tree.read(f"{place}/hosts.toml")
    if registry.client is None:
        return None
    if hosts.content is None and _has_others_certificates(tree, place, owned):
        return client_files.chosen(tree, place, registry, owned)
    usual = _usual(place, registry)
    ours = own(registry, f"{place}/{CA}", usual)
    if hosts.content is None or _is_ours(hosts, owned, ours):
        return usual
    stem = _stem_beside(tree, place, hosts.path, hosts.content, registry)
    return client_files.paths(place, stem)


def _usual(place: str, registry: Registry) -> Client:
    return None if registry.client is None else client_files.paths(place)


def mirror_changes(
    tree: Tree,
    roots: list[str],
    registry: Registry,
    of: Mirror,
    owned: Ledger,
    made: Sequence[Change],
) -> tuple[Change, ...]:
    """What makes another registry's images be asked of ours first. ``made``: what comes into our
    registry's own folder."""
    place = folder(tree, roots, of.of)
    hosts = tree.read(f"{place}/hosts.toml")
    there = readable(hosts)
    ourselves = folder(tree, roots, registry.name)
    pair = pair_files(tree, ourselves, registry, owned)
    ca = authority_in(tree, ourselves, registry, made)
    beside = _ca_file(tree, f"{ourselves}/{BESIDE}", registry) if ca is None else ()
    ours = mirror(registry, of, ca or f"{ourselves}/{BESIDE}", pair)
    if (there is None and not tree.names(place)) or _is_ours(hosts, owned, ours):
        return (*beside, *change(PART, hosts, ours))
    section = at(parsed(hosts.path, there or b""), "host", of.url(registry))
    if isinstance(section, dict):
        return ()
    raise RefusedError(
        "mirror-foreign",
        f"{place} says already where images of {of.of} are asked for",
        cause="another tool configured that registry here",
        cure=f'add [host."{of.url(registry)}"] to {hosts.path}, or move the folder away',
    )


def without_ours(path: str, content: bytes) -> bytes | None:
    """A hosts.toml that others edited since, without our part of it. None: nothing else is left."""
    try:
        text = content.decode("utf-8-sig")
        parse(content)
    except (TomlError, UnicodeDecodeError):
        return content
    if content.startswith(CARRIED):
        return without_our_ca(content)[len(CARRIED) :]
    if text.startswith(HEADER):
        place = path.rpartition("/")[0]
        for key, ours in (("ca", f"{place}/{CA}"), ("client", client_files.paths(place)[0])):
            entry = toml_edit.scan(text).entry((key,))
            if entry is not None and ours in text[entry.value : entry.value_end]:
                text = text[: entry.start] + text[entry.end :]
        return text[len(HEADER) :].encode("utf-8")
    return without_our_ca(content)


def without_our_ca(content: bytes) -> bytes:
    """A hosts.toml that speaks for others too, without the CA that we added to it."""
    try:
        parse(content)
    except TomlError:
        return content
    codec = encoding(content)
    text = toml_edit.release(content.decode(codec), COMMENT)
    text = _without_path(text, "ca", f"/{BESIDE}")
    return _without_path(text, "client", f"/{client_files.BESIDE}.cert").encode(codec)


def absolute(place: str, path: str, content: bytes) -> str:
    """Another folder's hosts.toml with every file it names told by its whole path."""
    text = content.decode("utf-8-sig")
    tables = parsed(path, content)
    for entry in reversed(toml_edit.scan(text).entries):
        if entry.keys[-1] in ("ca", "client"):
            value = at(tables, *entry.keys)
            whole = _absolute(place, value)
            if whole != value:
                text = text[: entry.value] + json.dumps(whole) + text[entry.value_end :]
    return text


def of_certificates(tree: Tree, place: str, host: str) -> str:
    """A folder read as Docker reads it, said as a hosts.toml."""
    there = tree.names(place)
    authorities = [f"{place}/{name}" for name in there if name.endswith(".crt")]
    pairs = [
        [f"{place}/{name}", f"{place}/{name[:-5]}.key" if f"{name[:-5]}.key" in there else ""]
        for name in there
        if name.endswith(".cert")
    ]
    server = "registry-1.docker.io" if host == "docker.io" else host
    lines = [f'server = "https://{server}"'] if host != DEFAULT else []
    lines += [f"ca = {json.dumps(authorities)}"] if authorities else []
    lines += [f"client = {json.dumps(pairs)}"] if pairs else []
    return "\n".join([*lines, "", "[host]", ""])


def parsed(path: str, content: bytes) -> dict[str, Any]:
    """A file's tables, or a refusal that names what is wrong with it."""
    try:
        return parse(content)
    except TomlError as problem:
        utf8 = "UTF-8" in str(problem)
        raise RefusedError(
            "config-not-utf8" if utf8 else "config-not-toml",
            f"{path} is not {'UTF-8' if utf8 else 'TOML'}: {problem}",
            cause="the file is damaged, or is not what containerd reads",
            cure=f"correct {path}, then run again",
        ) from None


def _absolute(place: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_absolute(place, one) for one in value]
    known = isinstance(value, str) and value and not value.startswith("/")
    return f"{place}/{value}" if known else value


def _is_ours(hosts: File, owned: Ledger, ours: bytes) -> bool:
    """Whether we wrote the whole file, speaking for none but us, and no one has edited it since."""
    if (hosts.content or b"").startswith(CARRIED):
        return False
    mine = owned.get(hosts.path)
    if mine is not None and hosts.content == mine.after:
        return mine.before is None
    return hosts.content == ours


def _has_others_certificates(tree: Tree, place: str, owned: Ledger) -> bool:
    return any(
        name.endswith((".crt", ".cert", ".key")) and f"{place}/{name}" not in owned
        for name in tree.names(place)
    )


def _ca_file(tree: Tree, path: str, registry: Registry) -> tuple[Change, ...]:
    """The CA; a file that holds just it in another spelling stays as it is."""
    if registry.plain_http:
        return ()
    file = tree.read(path)
    content = readable(file)
    same = content is not None and certificates(content) == certificates(registry.ca_bytes)
    return change(PART, file, content if same else registry.ca_bytes)


Levels = list[tuple[toml_edit.Keys, dict[str, Any]]]


def _levels(path: str, content: bytes, registry: Registry) -> Levels:
    """The parts of a hosts.toml by which this registry itself is reached, with what they say."""
    tables = parsed(path, content)
    found: Levels = []
    hosts = tables.get("host")
    for url, said in hosts.items() if isinstance(hosts, dict) else ():
        pulls = isinstance(said, dict) and "pull" in said.get("capabilities", ["pull"])
        if pulls and _is_at(url, registry):
            found.append((("host", url), said))
    server = tables.get("server", registry.url)
    if isinstance(server, str) and _is_at(server, registry):
        found.append(((), tables))
    return found


def _is_at(url: str, registry: Registry) -> bool:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        return False
    scheme = "http" if registry.plain_http else "https"
    return (parts.scheme, parts.hostname, port) == (scheme, registry.host, registry.port)


def _trusts(tree: Tree, place: str, path: str, content: bytes, registry: Registry) -> bool:
    """Whether another's hosts.toml reaches this registry with a CA file that holds our CA."""
    if registry.plain_http:
        return bool(_levels(path, content, registry))
    for _, said in _levels(path, content, registry):
        files = [_absolute(place, str(one)) for one in _listed(said.get("ca"))]
        held = frozenset().union(*(certificates(tree.read(path).content) for path in files))
        if certificates(registry.ca_bytes) <= held:
            return True
    return False


def _listed(value: Any) -> list[Any]:
    """What a ``ca`` or a ``client`` names: one file, or a list of files or of pairs of them."""
    return [value] if isinstance(value, str) else list(value or [])


def _presents(tree: Tree, place: str, path: str, content: bytes, registry: Registry) -> bool:
    """Whether another's hosts.toml names the registry's pair wherever the registry is reached."""
    pair = registry.client
    for _, said in _levels(path, content, registry):
        files = [one if isinstance(one, list) else [one] for one in _listed(said.get("client"))]
        read = [[tree.read(str(_absolute(place, name))) for name in one if name] for one in files]
        if pair is None or not any(
            one
            and client_files.holds(one[0], pair.certificate)
            and client_files.holds(one[-1], pair.key)
            for one in read
        ):
            return False
    return True


def _with_value(path: str, content: bytes, registry: Registry, key: str, ours: Any) -> bytes:
    """Another's hosts.toml with a file of ours added to ``key`` wherever this registry is reached.

    An edit of text; ``ours`` is the CA's file, or the list of a pair's two.
    """
    levels = _levels(path, content, registry)
    if not levels:
        plain.refuse([File(path, path, content)], registry)
        raise RefusedError(
            "hosts-toml-elsewhere",
            f"{path} sends every pull of {registry.name} elsewhere",
            cause="another tool decided that this registry is not asked itself",
            cure=f"add it to that file, or move it away: mv {shlex.join((path, f'{path}.old'))}",
        )
    if registry.plain_http:
        return content
    codec = encoding(content)
    text = content.decode(codec)
    for keys, said in levels:
        there = _listed(said.get(key))
        if ours in there:
            continue
        alone = isinstance(ours, str) and not there
        value = ours if alone else [*there, ours]
        expected = parse(text.encode("utf-8"))
        at(expected, *keys)[key] = value
        try:
            literal = toml_edit.quoted(ours, text) if alone else json.dumps(value)
            text = toml_edit.set_value(text, keys, key, literal, COMMENT)
            understood = parse(text.encode("utf-8")) == expected
        except ValueError:
            understood = False
        if not understood:
            raise RefusedError(
                "hosts-toml-not-understood",
                f"{path} is written in a way that cannot be edited safely",
                cause=f"our `{key}` cannot be added to it without rewriting other lines",
                cure=f"add {json.dumps(ours)} to its `{key}` by hand, then run again",
            )
    return text.encode(codec)


def _without_path(text: str, key: str, name: str) -> str:
    """Lists without a file of that name, if no mark says what stood there before."""
    for entry in reversed(toml_edit.scan(text).entries):
        value = text[entry.value : entry.value_end]
        if entry.keys[-1] == key and f'{name}"' in value:
            listed = _listed(parse(f"k = {value}".encode())["k"])
            kept = [one for one in listed if not _first(one).endswith(name)]
            text = text[: entry.value] + json.dumps(kept) + text[entry.value_end :]
    return text


def _first(named: Any) -> str:
    return named if isinstance(named, str) else str(next(iter(named), ""))
