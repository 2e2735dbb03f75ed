"""What a prune lets go, over made-up registries: nothing that something kept, or running, needs."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.catalogue.listing import HeldManifest, Repository
from moorage.catalogue.policy import RetentionPolicy
from moorage.catalogue.retention import InUse, TagVerdict, decide, emptied, subject_of
from moorage.registry.storage.layout import Link
from moorage.registry.storage.manifest import Manifest

NOW = 1e9
DAY = 86400.0
DIGESTS = [f"sha256:{number:064x}" for number in range(12)]


def companion(digest: str, ending: str = ".sig") -> str:
    return f"sha256-{digest[7:]}{ending}"


@st.composite
def repositories(draw: st.DrawFn) -> Repository:
    """Manifests that name only earlier ones, tags of them, signatures of any of them."""
    present = draw(st.lists(st.sampled_from(DIGESTS), unique=True, min_size=1))
    manifests = {}
    for place, digest in enumerate(present):
        children = draw(st.lists(st.sampled_from(present[:place] or [""]), unique=True, max_size=3))
        subject = draw(st.sampled_from(["", "", *present[:place]]))
        manifests[digest] = HeldManifest(
            Manifest(children=tuple(filter(None, children)), subject=subject, config=f"c{digest}"),
            NOW - draw(st.floats(0, 90)) * DAY,
        )
    names = [*"abcdef", *(companion(digest) for digest in DIGESTS[:6])]
    tags = draw(st.dictionaries(st.sampled_from(names), st.sampled_from(present), max_size=8))
    pushed = {tag: NOW - draw(st.floats(0, 90)) * DAY for tag in tags}
    name = draw(st.sampled_from(["one", "two", "three/four"]))
    return Repository(name, {t: Link(d, pushed[t]) for t, d in tags.items()}, manifests)


policies = st.builds(
    RetentionPolicy,
    st.none() | st.integers(0, 3),
    st.none() | st.sampled_from([0.0, 10 * DAY, 60 * DAY]),
    st.booleans(),
    st.sampled_from([(), ("a",), ("one:*",), ("three/**", "b")]),
)
uses = st.builds(
    InUse,
    st.frozensets(st.tuples(st.sampled_from(["one", "two"]), st.sampled_from("abcd")), max_size=2),
    st.frozensets(st.sampled_from([*DIGESTS, *(f"c{one}" for one in DIGESTS)]), max_size=2),
)
held = st.lists(repositories(), min_size=1, max_size=3, unique_by=lambda one: one.name)


def after(found: list[Repository], verdicts: tuple[TagVerdict, ...]) -> list[Repository]:
    """What is left once that is carried out."""
    tags = {(one.repository, one.tag) for one in verdicts if one.goes and one.tag}
    gone = {(one.repository, one.digest) for one in verdicts if one.whole}
    return [
        replace(
            one,
            tags={
                tag: link
                for tag, link in one.tags.items()
                if (one.name, tag) not in tags and (one.name, link.digest) not in gone
            },
            manifests={d: m for d, m in one.manifests.items() if (one.name, d) not in gone},
        )
        for one in found
    ]


@settings(max_examples=150, deadline=None)
@given(held, policies, uses)
def test_no_child_of_what_is_left_goes(
    found: list[Repository], policy: RetentionPolicy, in_use: InUse
) -> None:
    for before, left in zip(found, after(found, decide(found, policy, in_use, NOW)), strict=True):
        for manifest in left.manifests.values():
            there = set(manifest.manifest.children) & before.manifests.keys()
            assert there <= left.manifests.keys()
        assert {link.digest for link in left.tags.values()} <= left.manifests.keys()


@settings(max_examples=150, deadline=None)
@given(held, policies, uses)
def test_no_signature_of_what_is_left_goes(
    found: list[Repository], policy: RetentionPolicy, in_use: InUse
) -> None:
    left = after(found, decide(found, policy, in_use, NOW))
    digests = {digest for one in left for digest in one.manifests}
    for before, now in zip(found, left, strict=True):
        signing = {tag for tag in before.tags if subject_of(tag) in digests}
        assert signing <= now.tags.keys()
        said = {d for d, one in before.manifests.items() if one.manifest.subject in digests}
        assert said <= now.manifests.keys()


@settings(max_examples=150, deadline=None)
@given(held, policies, uses)
def test_nothing_in_use_goes(
    found: list[Repository], policy: RetentionPolicy, in_use: InUse
) -> None:
    for before, left in zip(found, after(found, decide(found, policy, in_use, NOW)), strict=True):
        for tag, link in before.tags.items():
            if (before.name, tag) in in_use.tags:
                assert tag in left.tags
                assert link.digest in left.manifests
        used = {
            digest
            for digest, one in before.manifests.items()
            if digest in in_use.digests or one.manifest.config in in_use.digests
        }
        assert used <= left.manifests.keys()


@settings(max_examples=100, deadline=None)
@given(held, policies, uses)
def test_a_tag_goes_by_the_policy_alone(
    found: list[Repository], policy: RetentionPolicy, in_use: InUse
) -> None:
    verdicts = {(one.repository, one.tag): one for one in decide(found, policy, in_use, NOW)}
    for one in found:
        images = sorted(
            (tag for tag in one.tags if not subject_of(tag)),
            key=lambda tag: (-one.tags[tag].pushed, tag),
        )
        for rank, tag in enumerate(images):
            age, limit = NOW - one.tags[tag].pushed, policy.older_than
            stays = (
                not policy.of_tags
                or policy.protects(one.name, tag)
                or (policy.keep is not None and rank < policy.keep)
                or (limit is not None and age <= limit)
            )
            if stays:
                assert not verdicts[one.name, tag].goes


@settings(max_examples=100, deadline=None)
@given(held, policies, uses)
def test_a_second_prune_finds_nothing_of_the_first(
    found: list[Repository], policy: RetentionPolicy, in_use: InUse
) -> None:
    left = after(found, decide(found, policy, in_use, NOW))
    again = decide(left, replace(policy, untagged=False), in_use, NOW)
    assert [one for one in again if one.goes and one.tag and not subject_of(one.tag)] == []


def one(name: str = "app", **tags: str) -> Repository:
    """A repository of images that are named by their digest, the first the oldest."""
    links = {
        tag.replace("_", "-"): Link(digest, NOW - (100 - place) * DAY)
        for place, (tag, digest) in enumerate(tags.items())
    }
    return Repository(
        name, links, {link.digest: HeldManifest(Manifest(), link.pushed) for link in links.values()}
    )


def goes(verdicts: tuple[TagVerdict, ...]) -> set[str]:
    return {one.tag or one.digest for one in verdicts if one.goes}


def test_the_newest_stay_and_the_reason_is_told() -> None:
    found = [one(v1=DIGESTS[1], v2=DIGESTS[2], v3=DIGESTS[3])]
    verdicts = {v.tag: v for v in decide(found, RetentionPolicy(keep=2), InUse(), NOW)}
    assert {tag for tag, v in verdicts.items() if v.goes} == {"v1"}
    assert verdicts["v3"].why == "among the 2 newest"
    assert (verdicts["v1"].why, verdicts["v1"].whole) == ("not among the 2 newest", True)


def test_a_tag_whose_manifest_another_tag_needs_goes_alone() -> None:
    found = [one(old=DIGESTS[1], latest=DIGESTS[1])]
    verdicts = {v.tag: v for v in decide(found, RetentionPolicy(keep=1), InUse(), NOW)}
    assert (verdicts["old"].goes, verdicts["old"].whole) == (True, False)
    assert "stays, for others" in verdicts["old"].why


def test_a_signature_goes_with_its_image() -> None:
    found = [one(v1=DIGESTS[1], v2=DIGESTS[2])]
    tags = {
        **found[0].tags,
        companion(DIGESTS[1]): Link(DIGESTS[5], NOW),
        companion(DIGESTS[2]): Link(DIGESTS[6], NOW),
    }
    manifests = {**found[0].manifests, **{d: HeldManifest(Manifest(), NOW) for d in DIGESTS[5:7]}}
    held_ = [Repository("app", tags, manifests)]
    assert goes(decide(held_, RetentionPolicy(keep=1), InUse(), NOW)) == {
        "v1",
        companion(DIGESTS[1]),
    }


def test_a_node_that_runs_one_platform_keeps_the_whole_index() -> None:
    tags = {"v1": Link(DIGESTS[1], NOW - 9 * DAY), "v2": Link(DIGESTS[3], NOW)}
    manifests = {
        DIGESTS[1]: HeldManifest(Manifest(children=(DIGESTS[2],)), NOW - 9 * DAY),
        DIGESTS[2]: HeldManifest(Manifest(), NOW - 9 * DAY),
        DIGESTS[3]: HeldManifest(Manifest(), NOW),
    }
    found = [Repository("app", tags, manifests)]
    assert goes(decide(found, RetentionPolicy(keep=1), InUse(), NOW)) == {"v1", DIGESTS[2]}
    running = InUse(digests=frozenset({DIGESTS[2]}))
    assert goes(decide(found, RetentionPolicy(keep=1), running, NOW)) == set()


def test_a_child_whose_index_is_still_being_pushed_is_no_garbage() -> None:
    found = [Repository("app", {}, {DIGESTS[1]: HeldManifest(Manifest(), NOW - 3600)})]
    assert goes(decide(found, RetentionPolicy(untagged=True), InUse(), NOW)) == set()
    old = [Repository("app", {}, {DIGESTS[1]: HeldManifest(Manifest(), NOW - 2 * DAY)})]
    assert goes(decide(old, RetentionPolicy(untagged=True), InUse(), NOW)) == {DIGESTS[1]}
    assert goes(decide(old, RetentionPolicy(keep=0), InUse(), NOW)) == set()


def test_a_repository_that_would_be_empty_is_named() -> None:
    found = [one("dead", v1=DIGESTS[1]), one("alive", v1=DIGESTS[2], v2=DIGESTS[3])]
    assert emptied(decide(found, RetentionPolicy(older_than=99.5 * DAY), InUse(), NOW)) == ["dead"]
    assert emptied(decide(found, RetentionPolicy(keep=0), InUse(), NOW)) == ["alive", "dead"]
    assert emptied(decide(found, RetentionPolicy(keep=1), InUse(), NOW)) == []
