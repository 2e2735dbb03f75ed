"""Which runtimes there are, as each one's own file declares it."""
