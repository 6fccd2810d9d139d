"""From a simulation to an ONNX file, and the file against its simulation."""
