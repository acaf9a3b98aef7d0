"""Photographs in, pixels and features out: all formats to one size, in batches that are read ahead."""
