"""What a command does, told as it happens: its log, ``-v``, and the bundle of ``inv support``."""
