"""Steps that learn weights, biases or their rounding, with the values of each orbit kept equal."""
