"""Invoke's own program: its start, its edges, completion and help pages."""
