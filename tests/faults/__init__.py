"""The promise, tried: whatever is done to an agent at work, the node is old or new, and serves."""
