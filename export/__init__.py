"""Exports a trained run to a bundle: ONNX graphs, shared weights and a manifest, verified against PyTorch."""

import sys

from engine.commands.parser import explain_missing

if sys.argv[:1] == ["-m"]:  # Python is about to run a command of this package
    explain_missing("cpu,train")
