# What the service starts: the archive, or the one before it where a new one does not do.
# It stands alone beside the archive, outlives upgrades, and uses the standard library alone.
# ruff: noqa: PTH100, PTH105, PTH108, PTH110, PTH118, PTH120, PTH123, S606
from __future__ import annotations

import os
import sys

# An archive on trial is begun so often; answering an operator ends the trial.
TRIES = 2

folder = os.path.dirname(os.path.abspath(__file__))
archive, previous, trial = (os.path.join(folder, n) for n in ("agent.pyz", "previous.pyz", "trial"))

if os.path.exists(trial):
    with open(trial) as file:
        text = file.read()
    tries = int(text) if text.isdigit() else TRIES
    if tries >= TRIES:
        if os.path.exists(previous):
            os.replace(previous, archive)
            sys.stderr.write("moorage: the new agent did not answer; back to the one before\n")
        os.unlink(trial)
    else:
        with open(trial, "w") as file:
            file.write(str(tries + 1))

os.execv(sys.executable, [sys.executable, "-I", archive, "serve"])
