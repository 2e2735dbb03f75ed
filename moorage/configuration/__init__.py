"""Settings seen from outside: where each value comes from, what is wrong, and their schema."""
