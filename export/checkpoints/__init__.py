"""Captioners of other projects, read from their own files: one module per project, and what they share."""
