"""Thin modules, one a namespace: parse options, call the domain, show the result.

They are loaded for every ``inv --list``: import nothing at the top of them but ``command``.
"""
