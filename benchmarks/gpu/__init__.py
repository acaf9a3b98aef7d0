"""The engine on a GPU beside PyTorch: `python -m benchmarks.gpu`."""
