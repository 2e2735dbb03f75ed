"""Configurations as tools leave them in the field, each pulled with on a real node."""
