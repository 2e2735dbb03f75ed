"""What all tests share: an engine for those that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def docker_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where a chosen test is marked ``engine`` and none answers: installed, started, stopped."""
    if not any(item.get_closest_marker("engine") for item in request.session.items):
        yield
        return
    from tests.engine import running

    with running():
        yield
