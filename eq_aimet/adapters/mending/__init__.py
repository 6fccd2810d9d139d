"""How a library that fails on current torch or numpy is repaired, only where it needs it."""
