"""What all tests share: an engine for those that need one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow to make examples, and slow to try one: neither is a failure.
settings.register_profile(
    "any-machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("any-machine")


@pytest.fixture(scope="session", autouse=True)
def docker_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where a chosen test is marked ``engine`` and none answers: installed, started, stopped."""
    if not any(item.get_closest_marker("engine") for item in request.session.items):
        yield
        return
    from tests.engine import running

    with running():
        yield


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a short name: a socket has at most 107 bytes of path (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="mo-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """The engine's client; the test is skipped if none answers."""
    from moorage.docker import engine
    from moorage.settings import Settings

    config = Settings()
    if not engine.answers(config):
        pytest.skip("no Docker engine answers")
    made = engine.connect(config)
    yield made
    made.close()
