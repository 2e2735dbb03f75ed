"""One errand of the agent on a node: what is sent, what comes back, what goes wrong."""
