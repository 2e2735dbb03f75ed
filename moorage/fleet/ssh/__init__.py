"""SSH to a node: how it is reached, what its key is, a session."""
