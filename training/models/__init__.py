"""Encoders, the caption decoder, and the files with their weights."""
