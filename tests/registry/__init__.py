"""What the registry's storage promises, on real Distribution processes."""
