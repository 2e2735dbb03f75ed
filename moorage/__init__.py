"""The operator's side of Moorage. The agent, which runs on nodes, never imports it."""

import sys

# Invoke has no bytecode written unless it is told `--write-pyc`. Python's own switches count as
# ever; moorage.program.edges sees to it if this is loaded before Invoke reads the command line.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
