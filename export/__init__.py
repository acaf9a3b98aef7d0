"""Exports a trained run to a bundle: ONNX graphs, shared weights and a manifest, verified against PyTorch."""
