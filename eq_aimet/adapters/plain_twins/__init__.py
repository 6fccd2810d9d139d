"""The plain twins of modules that e2cnn and escnn share: escnn began as a copy of e2cnn."""
