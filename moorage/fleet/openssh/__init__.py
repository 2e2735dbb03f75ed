"""The user's OpenSSH configuration -> Routes: where a Target is, as whom, through what, with what.

``ssh -G`` answers if OpenSSH's ``ssh`` is on this machine (``program``), and its answer is kept for
as long as its files are the same (``memory``). Else the files are read here (``reading``): what is
not understood is refused, for a wrong answer is another machine, changed as root.
"""

from __future__ import annotations

from moorage.fleet.openssh.routes import (
    LabHosts,
    Route,
    remembered,
    require_each_once,
    routes,
)

__all__ = ["LabHosts", "Route", "remembered", "require_each_once", "routes"]
