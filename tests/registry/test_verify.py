"""Damage on the disk is found, all of it, and named by the images that it breaks."""

from __future__ import annotations

import random
from pathlib import Path

from moorage.registry.storage import verifying
from moorage.registry.storage.layout import Layout
from tests.registry.program import INDEX, Registry, digest_of, image, index


def _stored(layout: Layout, content: bytes) -> str:
    digest = digest_of(content)
    path = layout.blob(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def test_a_thousand_flipped_bits_are_a_thousand_found(tmp_path: Path) -> None:
    layout, chance = Layout(tmp_path), random.Random(1)  # noqa: S311
    digests = [_stored(layout, chance.randbytes(chance.randint(1, 3000))) for _ in range(1500)]
    chosen = chance.sample(digests, 1000)
    for digest in chosen:
        content = bytearray(layout.blob(digest).read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        layout.blob(digest).write_bytes(content)
    found = verifying.verify(layout)
    assert {one.digest for one in found.wrong} == set(chosen)
    assert found.blobs == 1500


def test_a_wrong_blob_is_named_by_the_images_that_need_it(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.start()
    try:
        registry.push("a", "one", b"shared", b"own")
        registry.push("b/c", "two", b"shared")
        child = image(b"{}", b"deep")
        registry.push_blob("d", b"{}")
        registry.push_blob("d", b"deep")
        registry.push_manifest("d", digest_of(child), child)
        registry.push_manifest("d", "many", index(child), INDEX)
        layout = Layout(tmp_path)
        assert verifying.verify(layout).wrong == ()
        layout.blob(digest_of(b"shared")).write_bytes(b"sharee")
        layout.blob(digest_of(b"own")).unlink()
        layout.blob(digest_of(b"deep")).write_bytes(b"")
        wrong = {one.digest: one for one in verifying.verify(layout).wrong}
        assert wrong.keys() == {digest_of(b"shared"), digest_of(b"own"), digest_of(b"deep")}
        assert wrong[digest_of(b"shared")].images == ("a:one", "b/c:two")
        assert wrong[digest_of(b"own")] == verifying.Wrong(digest_of(b"own"), "", ("a:one",))
        assert wrong[digest_of(b"deep")].images == ("d:many", f"d@{digest_of(child)}")
    finally:
        registry.kill()


def test_a_platform_that_was_never_pushed_is_no_damage(tmp_path: Path) -> None:
    """Distribution refuses such an index; skopeo's copy of one platform made some before 2.8."""
    layout = Layout(tmp_path)
    there, missing = image(_content := b"{}", b"x"), image(b"{}", b"y")
    for content in (_content, b"x", there):
        _stored(layout, content)
    top = _stored(layout, index(there, missing))
    link = layout.tag_link("a", "many")
    link.parent.mkdir(parents=True)
    link.write_text(top)
    assert verifying.verify(layout).wrong == ()
