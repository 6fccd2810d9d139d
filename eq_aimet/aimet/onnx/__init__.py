"""Exports a simulation to an ONNX file, and compares the file with its simulation."""
