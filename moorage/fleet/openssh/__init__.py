"""What OpenSSH makes of a host: which options hold for it.

``ssh -G`` answers if OpenSSH's ``ssh`` is on this machine (``program``), and its answer is kept for
as long as its files are the same (``memory``). Else the files are read here (``reading``): what is
not understood is refused, for a wrong answer is another machine, changed as root. ``answers``
chooses between them; what becomes of an answer is decided in ``moorage.fleet.ssh.routes``.
"""
