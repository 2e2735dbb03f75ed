"""The page in a real browser: ``python -m tests.web`` (the session ``web``, by hand)."""
