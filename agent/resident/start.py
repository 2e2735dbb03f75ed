# What the service starts: the archive, or the one before it where a new one does not do.
# It stands alone beside the archive, outlives upgrades, and uses the standard library alone.
# ruff: noqa: PTH100, PTH105, PTH108, PTH110, PTH118, PTH120, PTH123, S606
from __future__ import annotations

import os
import resource
import sys

# An archive on trial is begun so often; answering an operator ends the trial.
TRIES = 2

folder = os.path.dirname(os.path.abspath(__file__))
names = ("agent.pyz", "previous.pyz", "trial", "settling")
archive, previous, trial, settling = (os.path.join(folder, name) for name in names)

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

# Nobody waits for this start: what else is at work here goes first. Only if there is a way back to
# the usual priority, which it takes when it serves (RLIMIT_NICE, getrlimit(2)): its unit asks for
# one, and a node that is a container may not have it to give.
if os.path.exists(settling) and not 0 <= resource.getrlimit(resource.RLIMIT_NICE)[0] < 20:
    os.nice(19)
os.execv(sys.executable, [sys.executable, "-I", archive, "serve"])
