"""The agent that stays: the same core behind HTTPS, with drift put back while nobody looks.

TLS 1.3 and client certificates only; ``docs/security.md`` says who may do what. ``app`` routes,
``gate`` lets connections in, ``work`` runs the core in a process of its own, ``drift`` watches.
"""
