"""An engine for the tests that need one, as `inv up` would get it, and gone again afterwards.

``python -m tests.engine`` gets one that stays, and begins the build of Kubernetes in it: five
minutes of two cores that pass while other sessions wait for daemons. `nox -s k8s` joins it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from moorage import engine, settings
from moorage.settings import Settings
from moorage.ui import UI


@contextmanager
def running() -> Iterator[None]:
    """Where no engine answers: installed, started, and stopped at the end."""
    ours, ui = _settings(), UI(yes=True)
    stood = engine.answers(ours)
    engine.ensure(ours, ui)
    try:
        yield
    finally:
        if not stood:
            engine.stop(ours, ui)


def _settings() -> Settings:
    """The defaults, and the data folder that noxfile.py names for the tests' engine."""
    return settings.parse({"engine": {"data": os.environ.get("INVOKE_ENGINE_DATA", "")}})


def main() -> None:
    from moorage.lab.kubernetes import binaries, source

    ours, ui = _settings(), UI(yes=True)
    engine.ensure(ours, ui)
    if binaries.pending(ours):
        source.begin(ours, engine.connect(ours), ui)
        ui.say("Kubernetes is being built, in the background")


if __name__ == "__main__":
    main()
