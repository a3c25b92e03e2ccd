"""What the machine can do with the same libraries, without our engine."""
