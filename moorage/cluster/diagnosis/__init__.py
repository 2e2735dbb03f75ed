"""Why pods cannot pull: their nodes, their owners, what is found."""
