"""Trains caption decoders on the features of frozen image encoders, in PyTorch."""
