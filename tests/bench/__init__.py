"""Figures beside their peers, measured in one run: `nox -s bench`. Never a timed test."""
