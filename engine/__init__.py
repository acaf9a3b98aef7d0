"""Captions photographs: images in, sentences with scores out, on ONNX Runtime."""
