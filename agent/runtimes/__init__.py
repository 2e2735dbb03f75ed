"""Each part of a node that can hold trust: one module, one place, the same three verbs.

``propose(facts, plan, owned)`` tells the changes that bring the part into the plan's state;
``strip(owned, content, registry)`` tells a file without our own lines, where others edited
it since; ``explain(facts, plan)`` tells which strategies there are, which one is taken, and why.
All are pure: ``transaction.py`` alone writes.
"""
