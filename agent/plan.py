"""The desired state of one node, parsed strictly at the edge. Both sides share this wire format.

A plan is a JSON document of at most ``MAX_PLAN_BYTES`` bytes. Everything that will end up in a file
(`/etc/hosts`, TOML, a folder name) is checked here, so that no later room needs to quote or doubt it.
Structure is judged by ``plan.schema.json`` (JSON Schema draft-07), meaning by this module.
"""
