"""Who may use the registry: logins, their passwords and tokens, and whose registry it is."""
