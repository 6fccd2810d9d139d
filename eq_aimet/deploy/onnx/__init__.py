"""ONNX files for devices: orbit storage, arrangement, integer arithmetic. Needs no AIMET."""
