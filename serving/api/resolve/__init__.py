"""A request against a model: nothing unknown, everything in range, every default filled in."""
