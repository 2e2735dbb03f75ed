"""Files that several runtimes read trust from, and what a part of a node proposes."""
