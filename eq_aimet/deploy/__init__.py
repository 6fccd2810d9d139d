"""Files for devices, and the runtimes that open them. Needs no AIMET."""
