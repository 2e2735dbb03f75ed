"""One file for a machine without a network: made here (:mod:`.saving`), unpacked there
(:mod:`.loading`). What takes things from it asks :mod:`moorage.supply.loaded`.
"""
