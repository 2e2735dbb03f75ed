"""The images in the registry: seen, kept by a policy, deleted.

They are read from the registry's own folder (:mod:`moorage.registry.storage`), which alone knows
ages and untagged manifests, and deleted over HTTPS, by the registry itself.
"""
