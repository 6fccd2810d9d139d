"""The INT8 simulation: its encodings, its readiness for a device, and our modules in it."""
