"""The runtimes that `verify_onnx` can run a file in, one module each."""
