"""Faults at scale: a rollout over real and simulated nodes, hurt while it runs, and then judged."""
