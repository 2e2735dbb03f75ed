"""How nodes stand: one of them, and many as a table."""
