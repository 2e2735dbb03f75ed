"""Which tags and manifests a policy lets go, which stay, and why. Pure.

What stays takes along what it is made of and what is said of it: an index its children, an image
its signatures (cosign's tags ``sha256-HEX.sig``, OCI's referrers by their tag ``sha256-HEX`` and by
``subject``). https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from moorage.catalogue.listing import Repository
from moorage.catalogue.policy import RetentionPolicy

_COMPANION = re.compile(r"sha256-([0-9a-f]{64})(?:\..+)?")
# A manifest without a tag may be a child whose index is still being pushed.
_UNTAGGED_SECONDS = 86400.0
Place = tuple[str, str]  # repository, digest


@dataclass(frozen=True)
class InUse:
    """What runs, or may be started again. ``tags``: (repository, tag); ``digests``: of manifests,
    indexes and configurations alike."""

    tags: frozenset[tuple[str, str]] = frozenset()
    digests: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TagVerdict:
    """One tag (or, with ``tag`` "", one untagged manifest), whether it goes, and why.

    ``whole``: its manifest goes as well; else the tag alone. ``size`` in bytes, ``pushed`` in
    seconds since 1970.
    """

    repository: str
    tag: str
    digest: str
    goes: bool
    why: str
    whole: bool = False
    size: int = 0
    pushed: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"


def subject_of(tag: str) -> str:
    """The digest of the image that a tag says something of; "" for a tag of an image."""
    found = _COMPANION.fullmatch(tag)
    return f"sha256:{found[1]}" if found else ""


def decide(
    held: Sequence[Repository], policy: RetentionPolicy, in_use: InUse, now: float
) -> tuple[TagVerdict, ...]:
    """A verdict per tag and per untagged manifest. ``now`` in seconds since 1970."""
    used = _used(held, in_use)
    reasons = {one.name: _tags(one, policy, used, in_use, now) for one in held}
    staying = {
        (one.name, one.tags[tag].digest)
        for one in held
        for tag, (goes, _) in reasons[one.name].items()
        if not goes
    }
    kept = _with_theirs(held, staying | used)
    leaving = {
        (one.name, one.tags[tag].digest)
        for one in held
        for tag, (goes, _) in reasons[one.name].items()
        if goes
    }
    going = _with_theirs(held, leaving - kept) - kept
    reached = kept | going
    alone = {
        (one.name, digest): _alone(manifest.pushed, policy, now)
        for one in held
        for digest, manifest in one.manifests.items()
        if (one.name, digest) not in reached  # no tag of an image leads to it
    }
    kept |= _with_theirs(held, {place for place, (goes, _) in alone.items() if not goes})
    going = (going | {place for place, (goes, _) in alone.items() if goes}) - kept
    return tuple(
        verdict for one in held for verdict in _verdicts(one, reasons[one.name], going, alone, used)
    )


def emptied(verdicts: Iterable[TagVerdict]) -> list[str]:
    """Repositories that would be left without a single image."""
    left: dict[str, bool] = {}
    for one in verdicts:
        if one.tag and not subject_of(one.tag):
            left[one.repository] = left.get(one.repository, False) or not one.goes
    return sorted(name for name, stays in left.items() if not stays)


def _tags(
    one: Repository, policy: RetentionPolicy, used: set[Place], in_use: InUse, now: float
) -> dict[str, tuple[bool, str]]:
    """Whether each tag of an image goes, by itself, and why."""
    images = [tag for tag in one.tags if not subject_of(tag)]
    newest = sorted(images, key=lambda tag: (-one.tags[tag].pushed, tag))
    rank = {tag: place for place, tag in enumerate(newest)}

    def verdict(tag: str) -> tuple[bool, str]:
        link = one.tags[tag]
        if not policy.of_tags:
            return False, "no policy of tags"
        if pattern := policy.protects(one.name, tag):
            return False, f"protected by {pattern}"
        if (one.name, tag) in in_use.tags or (one.name, link.digest) in used:
            return False, "in use"
        if policy.keep is not None and rank[tag] < policy.keep:
            return False, f"among the {policy.keep} newest"
        age = now - link.pushed
        if policy.older_than is not None and age <= policy.older_than:
            return False, "too young"
        return True, _because(policy)

    return {tag: verdict(tag) for tag in images}


def _because(policy: RetentionPolicy) -> str:
    parts = []
    if policy.keep is not None:
        parts.append(f"not among the {policy.keep} newest")
    if policy.older_than is not None:
        parts.append(f"older than {policy.older_than / 86400:g} d")
    return ", ".join(parts)


def _used(held: Sequence[Repository], in_use: InUse) -> set[Place]:
    """Manifests that run, and every index with one of them: nodes name now this, now that."""
    used = {
        (one.name, digest)
        for one in held
        for digest, manifest in one.manifests.items()
        if digest in in_use.digests or manifest.manifest.config in in_use.digests
    }
    used |= {
        (one.name, link.digest)
        for one in held
        for tag, link in one.tags.items()
        if (one.name, tag) in in_use.tags or link.digest in in_use.digests
    }
    while True:
        more = {
            (one.name, digest)
            for one in held
            for digest, manifest in one.manifests.items()
            if any((one.name, child) in used for child in manifest.manifest.children)
        }
        if more <= used:
            return used
        used |= more


def _with_theirs(held: Sequence[Repository], roots: set[Place]) -> set[Place]:
    """The roots, their children, what is said of them (in any repository), and so on."""
    found: set[Place] = set()
    by_name = {one.name: one for one in held}
    said = _said_of(held)
    waiting = list(roots)
    while waiting:
        place = waiting.pop()
        if place in found:
            continue
        found.add(place)
        name, digest = place
        manifest = by_name[name].manifests.get(digest)
        if manifest is not None:
            waiting.extend((name, child) for child in manifest.manifest.children)
        waiting.extend(said.get(digest, ()))
    return found


def _said_of(held: Sequence[Repository]) -> Mapping[str, set[Place]]:
    """A digest -> the manifests that are signatures, attestations and the like of it."""
    said: dict[str, set[Place]] = {}
    for one in held:
        for tag, link in one.tags.items():
            if subject := subject_of(tag):
                said.setdefault(subject, set()).add((one.name, link.digest))
        for digest, manifest in one.manifests.items():
            if manifest.manifest.subject:
                said.setdefault(manifest.manifest.subject, set()).add((one.name, digest))
    return said


def _alone(pushed: float, policy: RetentionPolicy, now: float) -> tuple[bool, str]:
    if not policy.untagged:
        return False, "untagged, and --untagged was not given"
    if now - pushed <= max(policy.older_than or 0.0, _UNTAGGED_SECONDS):
        return False, "untagged, and too young"
    return True, "untagged"


def _verdicts(
    one: Repository,
    reasons: Mapping[str, tuple[bool, str]],
    going: set[Place],
    alone: Mapping[Place, tuple[bool, str]],
    used: set[Place],
) -> list[TagVerdict]:
    found = []
    for tag, link in one.tags.items():
        place = (one.name, link.digest)
        goes, why = reasons.get(tag) or _companion(place, going, alone)
        whole = place in going
        if goes and not whole:
            why += "; its manifest stays, for others"
        size = one.size(link.digest)
        found.append(TagVerdict(one.name, tag, link.digest, goes, why, whole, size, link.pushed))
    tagged = {link.digest for link in one.tags.values()}
    for digest, manifest in one.manifests.items():
        place = (one.name, digest)
        if digest in tagged:
            continue
        whole = place in going
        why = "in use" if place in used else ""
        why = why or (alone[place][1] if place in alone else "belongs to one that ")
        why += ("goes" if whole else "stays") if why.endswith(" that ") else ""
        size = one.size(digest)
        found.append(TagVerdict(one.name, "", digest, whole, why, whole, size, manifest.pushed))
    return found


def _companion(
    place: Place, going: set[Place], alone: Mapping[Place, tuple[bool, str]]
) -> tuple[bool, str]:
    if place in alone:
        goes = place in going
        return goes, "its image is gone" + ("" if goes else f"; {alone[place][1]}")
    return place in going, f"says something of one that {'goes' if place in going else 'stays'}"
