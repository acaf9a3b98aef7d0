"""What more of everything costs: images, threads, callers, beams, words. `python -m benchmarks.scale`."""
