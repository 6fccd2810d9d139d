"""Repairs of libraries that fail on current torch or numpy; a repair runs only where it is needed."""
