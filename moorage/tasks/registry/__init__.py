"""Tasks of the registry itself: its life, its certificates, who may log in, what it holds."""
