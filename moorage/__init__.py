"""The operator's side of Moorage. The agent, which runs on nodes, never imports it."""

import sys

# Invoke has no bytecode written unless it is told `--write-pyc`, so that every command compiled all
# of this anew, for 75 ms. Python's own switches count as ever.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
