"""Photographs in, pixels and features out: every format, one size, batches ahead of whoever takes them."""
