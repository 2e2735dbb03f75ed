"""A collection while the registry serves: what it takes, what it leaves, the way back."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.errors import MoorageError
from moorage.registry.storage import collecting
from moorage.registry.storage import setting_aside as aside
from moorage.registry.storage.collecting import CollectionPolicy
from moorage.registry.storage.layout import Layout
from tests.registry import interleavings
from tests.registry.program import INDEX, Registry, digest_of, image, index

AT_ONCE = CollectionPolicy(grace=0, settle=0, keep=86400)
FOR_GOOD = replace(AT_ONCE, keep=0)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    data = tmp_path / "data"
    data.mkdir()
    made = Registry(data)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def layout(registry: Registry) -> Layout:
    return Layout(registry.data)


def test_a_deleted_image_frees_its_bytes_and_no_other(registry: Registry, layout: Layout) -> None:
    kept = registry.push("a", "kept", b"shared", b"own")
    gone = registry.push("a", "gone", b"shared", b"x" * 5000, config=b'{"gone":1}')
    assert registry.delete("a", gone) == 202
    done = collecting.collect(layout, FOR_GOOD)
    assert set(done.taken) == {gone, digest_of(b"x" * 5000), digest_of(b'{"gone":1}')}
    assert done.freed_bytes >= 5000
    assert registry.pull("a", kept) == ""
    assert {blob.digest for blob in layout.blobs()} == {
        kept, digest_of(b"shared"), digest_of(b"own"), digest_of(b"{}"),
    }  # fmt: skip


def test_what_a_collection_took_is_pushed_again_and_pulled(
    registry: Registry, layout: Layout
) -> None:
    gone = registry.push("a", "one", b"layer")
    registry.delete("a", gone)
    collecting.collect(layout, AT_ONCE)
    assert registry.push("a", "one", b"layer") == gone
    assert registry.pull("a", "one") == ""


def test_the_children_of_a_tagged_index_stay(registry: Registry, layout: Layout) -> None:
    children = [image(b"{}", b"arm"), image(b"{}", b"intel")]
    for child, layer in zip(children, (b"arm", b"intel"), strict=True):
        registry.push_blob("a", b"{}")
        registry.push_blob("a", layer)
        assert registry.push_manifest("a", digest_of(child), child) == 201
    assert registry.push_manifest("a", "many", index(*children), INDEX) == 201
    assert collecting.collect(layout, FOR_GOOD).taken == {}
    assert registry.pull("a", "many") == ""


def test_a_push_under_way_is_left_alone(registry: Registry, layout: Layout) -> None:
    """Its blobs are there, and no manifest names them yet."""
    registry.push_blob("a", b"{}")
    registry.push_blob("a", b"layer")
    assert collecting.collect(layout, CollectionPolicy(settle=0)).taken == {}
    assert registry.push_manifest("a", "late", image(b"{}", b"layer")) == 201
    assert registry.pull("a", "late") == ""


def test_a_blob_that_was_just_mounted_is_left_alone(registry: Registry, layout: Layout) -> None:
    registry.push("a", "one", b"layer")
    grace = CollectionPolicy(grace=3600, settle=0)
    old = layout.blob(digest_of(b"layer"))
    registry.delete("a", digest_of(image(b"{}", b"layer")))
    for path in (*layout.top.rglob("link"), *layout.top.rglob("data")):
        _age(path)
    query = f"?mount={digest_of(b'layer')}&from=a"
    assert registry.ask("POST", f"/v2/b/blobs/uploads/{query}")[0] == 201
    assert digest_of(b"layer") not in collecting.collect(layout, grace).taken
    assert old.exists()


def test_a_push_that_saw_the_blob_before_is_refused_and_not_lied_to(
    registry: Registry, layout: Layout
) -> None:
    gone = registry.push("a", "one", b"layer")
    registry.delete("a", gone)
    assert registry.push_blob("a", b"layer")  # "exists": nothing is sent
    collecting.collect(layout, AT_ONCE)
    assert registry.push_manifest("a", "one", image(b"{}", b"layer")) == 400


class _Meanwhile:
    """Does something in the middle of a collection: the first time that it waits."""

    def __init__(self, *things: object) -> None:
        self._things = list(things)

    def sleep(self, _: float) -> None:
        if self._things:
            self._things.pop(0)()  # type: ignore[operator]


def _clock(meanwhile: _Meanwhile) -> collecting.Clock:
    return collecting.Clock(sleep=meanwhile.sleep)


def test_what_a_push_relies_on_comes_back_after_the_links_were_taken(
    registry: Registry, layout: Layout
) -> None:
    """The registry had looked before the links went, and wrote its manifest after."""
    gone = registry.push("a", "one", b"layer")
    revision = layout.revision_link("a", gone)
    written = revision.read_bytes()
    registry.delete("a", gone)

    def late() -> None:
        revision.parent.mkdir(parents=True, exist_ok=True)
        revision.write_bytes(written)

    policy = replace(AT_ONCE, settle=1)
    done = collecting.collect(layout, policy, _clock(_Meanwhile(late)))
    assert done.aside == 0
    assert registry.pull("a", gone) == ""


def test_what_a_push_relies_on_comes_back_after_the_blobs_were_taken(
    registry: Registry, layout: Layout
) -> None:
    gone = registry.push("a", "one", b"layer")
    revision = layout.revision_link("a", gone)
    written = revision.read_bytes()
    registry.delete("a", gone)

    def late() -> None:
        assert not layout.blob(gone).exists()
        revision.parent.mkdir(parents=True, exist_ok=True)
        revision.write_bytes(written)

    policy = replace(AT_ONCE, settle=1)
    done = collecting.collect(layout, policy, _clock(_Meanwhile(lambda: None, late)))
    assert gone in done.returned
    assert done.aside == 0
    assert registry.pull("a", gone) == ""


def test_a_collection_that_was_killed_is_mended_by_the_next(
    registry: Registry, layout: Layout
) -> None:
    kept = registry.push("a", "one", b"layer")
    batch = aside.begin(layout, time.time())
    for path in (layout.layer_link("a", digest_of(b"layer")), layout.blob(digest_of(b"layer"))):
        assert aside.take(layout, batch, path.relative_to(layout.top))
    assert registry.pull("a", kept) != ""
    done = collecting.collect(layout, AT_ONCE)
    assert done.returned == {digest_of(b"layer")}
    assert registry.pull("a", kept) == ""


def test_the_way_back_brings_everything_back(registry: Registry, layout: Layout) -> None:
    gone = registry.push("a", "one", b"layer")
    link = layout.revision_link("a", gone)
    written = link.read_bytes()
    registry.delete("a", gone)
    collecting.collect(layout, AT_ONCE)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.write_bytes(written)
    assert registry.pull("a", gone) != ""
    assert collecting.restore(layout) == {gone, digest_of(b"layer"), digest_of(b"{}")}
    assert registry.pull("a", gone) == ""
    assert aside.batches(layout) == []


def test_what_is_aside_is_deleted_only_when_its_time_is_over(
    registry: Registry, layout: Layout
) -> None:
    registry.delete("a", registry.push("a", "one", b"x" * 900))
    assert collecting.collect(layout, AT_ONCE).freed_bytes == 0
    day_later = collecting.Clock(now=lambda: 4e9)
    assert collecting.collect(layout, AT_ONCE, day_later).freed_bytes >= 900


def test_what_is_needed_again_just_before_its_end_is_not_deleted(
    registry: Registry, layout: Layout
) -> None:
    """The one more look of step 6: a manifest came while the same run took something else."""
    gone = registry.push("a", "one", b"layer")
    revision = layout.revision_link("a", gone)
    written = revision.read_bytes()
    registry.delete("a", gone)
    collecting.collect(layout, AT_ONCE)
    registry.delete("a", registry.push("a", "two", b"another"))

    def late() -> None:
        revision.parent.mkdir(parents=True, exist_ok=True)
        revision.write_bytes(written)

    day_later = replace(_clock(_Meanwhile(late)), now=lambda: 4e9)
    done = collecting.collect(layout, replace(AT_ONCE, settle=1), day_later)
    assert {gone, digest_of(b"layer")} <= done.returned
    assert registry.pull("a", gone) == ""


def test_nothing_is_collected_beside_a_manifest_that_cannot_be_read(
    registry: Registry, layout: Layout
) -> None:
    kept = registry.push("a", "one", b"layer")
    layout.blob(kept).write_bytes(b"{}")
    with pytest.raises(MoorageError) as problem:
        collecting.collect(layout, FOR_GOOD)
    assert problem.value.code == "registry-damaged"
    assert layout.blob(digest_of(b"layer")).exists()


def test_a_disk_without_room_leaves_everything_where_it_was(
    registry: Registry, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.delete("a", registry.push("a", "one", b"layer"))
    before = sorted(path for path in layout.top.rglob("*") if path.is_file())
    taken = aside.take
    count = iter(range(99))

    def full(layout: Layout, batch: aside.Batch, item: Path) -> bool:
        if next(count) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(item))
        return taken(layout, batch, item)

    monkeypatch.setattr(aside, "take", full)
    with pytest.raises(MoorageError) as problem:
        collecting.collect(layout, AT_ONCE)
    assert (problem.value.code, "df -i" in problem.value.cure) == ("collect-refused", True)
    assert sorted(path for path in layout.top.rglob("*") if path.is_file()) == before


def test_what_is_planned_is_what_is_taken(registry: Registry, layout: Layout) -> None:
    registry.push("a", "kept", b"shared")
    registry.delete("a", registry.push("a", "gone", b"shared", b"own", config=b'{"a":1}'))
    planned = collecting.planned(layout, AT_ONCE)
    assert planned == collecting.collect(layout, AT_ONCE).taken != {}


def test_no_push_is_lost_whatever_happens_meanwhile(tmp_path: Path) -> None:
    tally = interleavings.run(tmp_path, 1, 6)
    assert tally.lost == [], str(tally)
    assert tally.pushed > 20, str(tally)
    assert tally.deleted > 10, str(tally)


def _age(path: Path) -> None:
    import os

    os.utime(path, (1e9, 1e9))
