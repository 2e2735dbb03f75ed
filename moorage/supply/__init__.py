"""Where packages and images come from: a loaded bundle, else the network. The one room that knows.

A bundle is one tar: ``manifest.json`` names every other member by digest (:mod:`.manifest`). What
was unpacked lies in the user's cache (:mod:`.loaded`), and a checkout points there.
"""
