"""Advisories about what the locks pin, by pip-audit."""
