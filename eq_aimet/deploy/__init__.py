"""ONNX files for devices: orbit storage, integer arithmetic, verification. Needs no AIMET."""
