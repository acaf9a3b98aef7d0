"""How fast the engine is beside what a user would pick instead, and what it bears.

A module NAME.py here, or a folder with a `__main__.py`, is the command `python -m benchmarks.NAME`. What they
share lies in harness/ (competitors, workloads, interleaved timing, saved runs), baselines/ (the same model in other
libraries) and load/ (requests, callers, servers). `pytest benchmarks/ --benchmark-only` times every competitor.
"""
