"""Cures where a bundle is loaded: what a network would bring comes from a bundle there."""

from __future__ import annotations

from pathlib import Path

from moorage.errors import MoorageError, Refused
from moorage.supply import loaded

_AGAIN = (
    "inv bundle.drop, then inv bundle.load FILE, a bundle made of this commit with these settings;"
    " with a network, inv bundle.drop alone"
)
# What no bundle has, by the code that says it is missing.
_OTHERWISE = {
    "no-restic": "restic is in no bundle: copy its package here, then"
    " sudo apt-get install ./restic_*.deb",
    "download-failed": "Kubernetes' programs are in no bundle: copy them here, and name their"
    " folder in lab.kubernetes_binaries",
}
_CURES = _OTHERWISE | dict.fromkeys(
    ("agent-wheels", "build-failed", "no-debian-base", "no-network", "no-package", "no-wheels"),
    _AGAIN,
)


CODES = frozenset(_CURES)


def advised(root: Path, problem: MoorageError) -> MoorageError:
    """``problem`` with the cure that works in a checkout which takes things from a bundle."""
    cure = cure_of(problem)
    if cure and loaded.current(root) is not None:
        problem.with_cure(cure)
    return problem


def cure_of(problem: MoorageError) -> str:
    """The cure where a bundle is loaded; "" if it is no other one than elsewhere. Pure.

    A refusal of what was asked for is none of the network: the platform without a wheel is one.
    """
    if isinstance(problem, Refused) and problem.code not in _OTHERWISE:
        return ""
    return _CURES.get(problem.code, "")
