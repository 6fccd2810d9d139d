"""Equalizes a plain model before its simulation: folds batch norms, moves scales and biases."""
