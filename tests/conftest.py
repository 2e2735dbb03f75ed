"""An engine for the tests that need one, as `inv up` would get it, and gone again afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def docker_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where a chosen test is marked ``engine`` and none answers: installed, started, stopped."""
    if not any(item.get_closest_marker("engine") for item in request.session.items):
        yield
        return
    from moorage import engine, settings
    from moorage.ui import UI

    ours, ui = settings.parse({}), UI(yes=True)
    engine.ensure(ours, ui)
    yield
    engine.stop(ours, ui)
