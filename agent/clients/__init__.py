"""Clients of runtimes: CRI, Docker's API, and programs that pull."""
