"""Turns a trained run into a bundle: ONNX graphs, shared weights and a manifest, verified against PyTorch."""
