"""One CA follows another: every node trusts both, proves the new one, and lets go of the old.

``course.py`` decides (pure), ``rotation.py`` has it done, the others do it: ``members.py`` on
nodes, on this machine and in a cluster, ``proving.py`` in the front, :mod:`moorage.pki.succession`
in ``certs``. What is done is kept in ``.moorage/rotation.json`` (``kept.py``).
"""
