"""Shows saved runs on one page: `python -m benchmarks.report`."""
