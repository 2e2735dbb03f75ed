"""The operator's side of Moorage. The agent, which runs on nodes, never imports it."""
