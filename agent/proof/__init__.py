"""Which proof a part of the node needs, and the proving."""
