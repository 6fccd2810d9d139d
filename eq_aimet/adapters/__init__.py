"""Adapters to the libraries of equivariant networks: the only places that import them."""
