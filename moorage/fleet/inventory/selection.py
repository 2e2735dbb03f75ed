"""Which hosts of all: lists, groups, files and standard input, limited and excluded. Pure.

``--hosts`` takes words with commas between them: a host, a range ``node[01-16].lan``, a group
``@web``, ``-`` for standard input. ``--inventory`` adds a file. ``--limit`` and ``--exclude`` take
hosts, ranges, groups, and patterns such as ``node1*``. One host named by two of them counts once.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moorage.errors import Refused
from moorage.fleet.inventory import listing, ranges, targets
from moorage.fleet.inventory.targets import Target


@dataclass(frozen=True)
class Selection:
    """What the user said; "" or None if nothing was."""

    hosts: str | None = None
    inventory: str = ""
    limit: str = ""
    exclude: str = ""

    @property
    def names_any(self) -> bool:
        return self.hosts is not None or bool(self.inventory)


@dataclass(frozen=True)
class Picked:
    """The selected hosts in order.

    ``by_word``: what each word of ``--hosts`` and ``--limit`` stands for. ``described``: those of
    an inventory that says how to reach them, an OpenSSH configuration or Ansible's.
    """

    hosts: tuple[Target, ...]
    by_word: tuple[frozenset[Target], ...] = ()
    described: frozenset[Target] = frozenset()


def resolve(
    selection: Selection,
    groups: Mapping[str, str],
    read: Callable[[str], bytes],
    ask: Callable[[str], bytes | None] = lambda _: None,
) -> tuple[Target, ...]:
    """The hosts of :func:`pick`."""
    return pick(selection, groups, read, ask).hosts


def pick(
    selection: Selection,
    groups: Mapping[str, str],
    read: Callable[[str], bytes],
    ask: Callable[[str], bytes | None] = lambda _: None,
) -> Picked:
    """What is selected. ``groups``: those of the settings, name -> list of hosts.

    ``read``: a path, or ``-`` for standard input -> its bytes. ``ask``: what Ansible says of a
    path, None if that cannot be had. Raises Refused for a bad word, an unknown or empty group, a
    file that cannot be read, a host that cannot be reached as its inventory says, and if nothing
    is left.
    """
    source = Sources(groups, read, ask)
    found: list[Target] = []
    if selection.inventory:
        found += source.file(selection.inventory).hosts
    by_word: list[frozenset[Target]] = []
    if selection.hosts is not None:
        typed = source.words(selection.hosts)
        found += typed
        by_word += source.by_word(selection.hosts, merged(found))
    hosts = merged(found)
    if selection.limit:
        by_word += source.by_word(selection.limit, hosts)
        kept = source.matching(selection.limit, hosts, "--limit")
        hosts = tuple(host for host in hosts if host in kept)
    if selection.exclude:
        gone = source.matching(selection.exclude, hosts, "--exclude")
        hosts = tuple(host for host in hosts if host not in gone)
    if not hosts:
        raise Refused(
            "no-hosts",
            "no host is left to work on",
            cause=f"--limit={selection.limit} and --exclude={selection.exclude} leave none"
            if selection.limit or selection.exclude
            else "the list of hosts is empty",
            cure="inv nodes.status without --limit and --exclude shows them all",
        )
    source.require_usable(hosts)
    return Picked(hosts, tuple(by_word), source.described & frozenset(hosts))


def merged(found: list[Target]) -> tuple[Target, ...]:
    """Each host once, at its first place and as it was named there.

    One address that is reached in two ways is two machines; one of which nothing but the address
    is said is the first that has it.
    """
    unique: dict[object, Target] = {}
    plain: set[tuple[str, int]] = set()
    for target in found:
        place = target.place
        if place in plain and not target.way:
            continue
        plain.add(place)
        unique.setdefault((place, target.way), target)
    return tuple(unique.values())


class Sources:
    """Groups of the settings and of the inventory file; each source is read once."""

    def __init__(
        self,
        groups: Mapping[str, str],
        read: Callable[[str], bytes],
        ask: Callable[[str], bytes | None],
    ) -> None:
        self._groups = groups
        self._read = read
        self._ask = ask
        self._files: dict[str, targets.Inventory] = {}

    def file(self, path: str) -> targets.Inventory:
        if path not in self._files:
            name = "standard input" if path == "-" else path
            self._files[path] = listing.read(self._read(path), name, lambda: self._ask(path))
        return self._files[path]

    @property
    def described(self) -> frozenset[Target]:
        """The hosts of files that say how to reach them."""
        return frozenset(
            host
            for inventory in self._files.values()
            if inventory.kind != targets.LINES
            for host in inventory.hosts
        )

    def require_usable(self, hosts: tuple[Target, ...]) -> None:
        """Raises Refused, by name, for those that cannot be reached as their inventory says."""
        for path, inventory in self._files.items():
            found = {
                host.name: inventory.unusable[host.name]
                for host in hosts
                if host.name in inventory.unusable and host in inventory.hosts
            }
            if found:
                names = ranges.fold(found)
                first, why = next(iter(found.items()))
                raise Refused(
                    "bad-inventory",
                    f"{path}: {names[:400]} cannot be reached as it says",
                    cause=f"{first}: {why}",
                    cure=f"--exclude={names[:400]} goes on without; or correct it there",
                    path=path,
                )

    def by_word(self, text: str, hosts: tuple[Target, ...]) -> list[frozenset[Target]]:
        """What each word stands for among ``hosts``; a bad one is for others to judge."""
        found = []
        for word in ranges.split(text) if text.strip() else []:
            with contextlib.suppress(Refused):
                if word != "-":
                    found.append(self.matching(word, hosts, ""))
        return found

    def words(self, text: str, within: tuple[str, ...] = ()) -> list[Target]:
        """The hosts a comma-separated list stands for. Raises Refused."""
        found: list[Target] = []
        typed: list[Target] = []
        for word in ranges.split(text) if text.strip() else []:
            if word == "-":
                found += self.file("-").hosts
            elif word.startswith("@"):
                found += self.group(word[1:], within)
            else:
                named = [self._named(name) for name in ranges.expand(word)]
                typed += named
                found += named
        if typed or not found:
            targets.targets_of(typed)  # the same host typed twice is a slip of the hand: refused
        return found

    def _named(self, word: str) -> Target:
        """The host that a file has under this name, else what the word says. Raises Refused."""
        hosts = (host for file in self._files.values() for host in file.hosts)
        return next((host for host in hosts if host.name == word), None) or targets.parse(word)

    def group(self, name: str, within: tuple[str, ...] = ()) -> list[Target]:
        """The hosts of a group: of the inventory file, else of the settings. Raises Refused."""
        for inventory in self._files.values():
            if name in inventory.groups:
                members = set(inventory.groups[name])
                hosts = [host for host in inventory.hosts if host.name in members]
                return hosts or self._empty(name)
        if name in within:
            raise _bad_group(name, f"it contains itself: {' -> '.join((*within, name))}")
        if name not in self._groups:
            known = sorted({*self._groups, *(g for f in self._files.values() for g in f.groups)})
            raise _bad_group(name, f"known groups: {', '.join(known) or 'none'}")
        if not self._groups[name].strip():
            return self._empty(name)
        return self.words(self._groups[name], (*within, name))

    def _empty(self, name: str) -> list[Target]:
        raise _bad_group(name, "it has no hosts")

    def matching(self, text: str, hosts: tuple[Target, ...], option: str) -> frozenset[Target]:
        """The hosts that a list of names, ranges, groups and patterns picks out of ``hosts``."""
        picked: set[Target] = set()
        for word in ranges.split(text):
            if word.startswith("@"):
                members = {(one.host, one.port) for one in self.group(word[1:])}
                matched = {host for host in hosts if (host.host, host.port) in members}
            else:
                wanted = ranges.expand(word)
                matched = {
                    host
                    for host in hosts
                    if any(
                        fnmatch.fnmatchcase(name, pattern)
                        for pattern in wanted
                        for name in (host.name, host.host)
                    )
                }
            if not matched:
                raise Refused(
                    "no-such-host",
                    f"{option}: {word!r} matches none of the {len(hosts)} hosts",
                    cause="it is misspelled, or not in this inventory",
                    cure=f"hosts: {ranges.fold(host.name for host in hosts)[:400]}",
                )
            picked |= matched
        return frozenset(picked)


def _bad_group(name: str, cause: str) -> Refused:
    return Refused(
        "bad-group",
        f"there is no usable group @{name}",
        cause=cause,
        cure="nodes.groups in invoke.yaml defines groups, as web: node[01-04].lan,db1; "
        "so does the file given by --inventory",
    )
