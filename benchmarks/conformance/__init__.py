"""Laws that each provider has to keep: `python -m benchmarks.conformance --provider cuda`."""
