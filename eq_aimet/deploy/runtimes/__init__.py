"""The runtimes in which `verify_onnx` can run a file, one module per runtime."""
