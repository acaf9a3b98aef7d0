"""Training loops: cross-entropy and self-critical, in one process or several."""
