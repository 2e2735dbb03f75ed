"""The same on the registry that `inv registry.up` makes: a container, TLS, a login."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moorage import registry
from moorage.backup import container, giving_back, restic, taking
from moorage.catalogue import deletion, listing
from moorage.pki import registry as pki
from moorage.registry.storage import collecting, verifying
from moorage.registry.storage.opened import for_collection, opened
from moorage.settings import Settings
from moorage.ui import UI
from tests.debian import program
from tests.registry.program import digest_of
from tests.unit.elsewhere import registry_project
from tests.unit.registry.test_life import Wire

pytestmark = pytest.mark.engine

QUIET = UI(as_json=True)


@pytest.fixture
def settings(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("PATH", f"{Path(program('restic')).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = registry_project(tmp_path)
    pki.issue(made)
    registry.up(made, client, QUIET)
    yield made
    registry.down(made, client, QUIET)


def test_images_are_deleted_collected_backed_up_and_restored(
    settings: Settings, client: Any, tmp_path: Path
) -> None:
    wire = Wire(settings)
    gone = wire.push(b"other")[1]
    wire.push(b"own")
    (held,) = listing.repositories(opened(settings), "app")
    steps, _ = deletion.of_reference(held, "", gone)
    for step in steps:
        deletion.carry_out(settings, registry.credentials(settings), step)
    layout = for_collection(settings)
    done = collecting.collect(layout, collecting.CollectionPolicy(grace=0, settle=0))
    assert digest_of(b"other") in done.taken
    assert wire.pull() == b"own"
    place = restic.place(str(tmp_path / "backups"), "correct horse")
    backed_up = taking.back_up(
        settings, QUIET.progress, place, partial(container.serving, settings)
    )
    assert (backed_up.tags, backed_up.left_out) == (1, ())
    registry.down(settings, client, QUIET, purge=True)
    for path in sorted(settings.certs_dir.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    giving_back.restore(settings, QUIET.progress, place)
    assert verifying.verify(opened(settings)).wrong == ()
    registry.up(settings, client, QUIET)
    assert Wire(settings).pull() == b"own"
