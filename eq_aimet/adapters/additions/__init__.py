"""What eq_aimet adds to the modules of every library; each adapter joins it to its library's classes."""
