"""Exported files: compact storage, operators that run in integers, verification. Needs ONNX and its runtime only."""
