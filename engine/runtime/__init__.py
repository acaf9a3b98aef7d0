"""ONNX Runtime: providers, sessions and the buffers that graphs run on."""
