"""The registry backed up by restic, and proof that it comes back.

A backup is a folder of hard links to the images (:mod:`moorage.backup.freeze`). restic stores it; a
registry of its own then serves what restic gives back.
"""
