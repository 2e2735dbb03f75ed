"""What goes over the wire: the plan in, events and results out, faults as one value."""
