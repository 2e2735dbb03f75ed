"""Certificates: the registry's CA and its own, the fleet's CA, who has one of it."""
