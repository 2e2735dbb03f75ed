"""The agent as a service of the node: installed, upgraded, taken away."""
