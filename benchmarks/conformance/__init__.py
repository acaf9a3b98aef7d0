"""Laws that every provider must satisfy: `python -m benchmarks.conformance --provider cuda`."""
