"""Training loops: cross-entropy and self-critical, on one process or several."""
