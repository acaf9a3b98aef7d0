"""Benchmarks of the engine against what a user would choose instead, and load tests.

A module NAME.py here, or a folder with a `__main__.py`, is the command `python -m benchmarks.NAME`. Shared code is in
harness/ (competitors, workloads, interleaved timing, saved runs), baselines/ (the same model in other libraries) and
load/ (requests, callers, servers). `pytest benchmarks/ --benchmark-only` times every competitor.
"""

import sys

from engine.commands.parser import explain_missing

if sys.argv[:1] == ["-m"]:  # Python is about to run a command of this package
    explain_missing("cpu,train,dev")
