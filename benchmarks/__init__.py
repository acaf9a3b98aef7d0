"""How fast the engine is beside PyTorch on the same weights, and that its memory stays flat."""
