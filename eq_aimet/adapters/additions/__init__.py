"""Modules that eq_aimet adds to every library; each adapter joins them to its library's classes."""
