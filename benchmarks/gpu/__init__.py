"""Compares the engine on a GPU with PyTorch: `python -m benchmarks.gpu`."""
