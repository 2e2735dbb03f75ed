"""The front: HAProxy before the registry, for TLS, logins and roles (docs/registry.md)."""
