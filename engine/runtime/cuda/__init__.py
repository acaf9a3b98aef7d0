"""What runs on an NVIDIA GPU: pixels, features and states stay in its memory, in batches of a few sizes."""
