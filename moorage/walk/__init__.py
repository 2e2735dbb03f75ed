"""The whole walk, as lists of phases that read like a table of contents: ``up`` and ``down``."""
