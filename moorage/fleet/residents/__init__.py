"""The agents that stay: HTTPS to them, and how one comes and goes."""
