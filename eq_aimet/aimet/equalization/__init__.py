"""What happens to a plain model before its simulation: batch norms folded, scales and biases moved."""
