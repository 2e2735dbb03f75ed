"""Invoke's own program: its start, its edges, completion and help pages."""

from pathlib import Path

# What ``run`` executes as ``inv``.
START = Path(__file__).with_name("start.py")
