"""What a command does, said as it happens: its log, ``-v``, and the bundle of ``inv support``."""
