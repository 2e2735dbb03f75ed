"""A Docker engine that answers, and what images are made of: packages, a base, builds."""
