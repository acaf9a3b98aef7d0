"""Trains caption decoders on the features of frozen image encoders, in PyTorch."""

import sys

from engine.commands.parser import explain_missing

if sys.argv[:1] == ["-m"]:  # Python is about to run a command of this package
    explain_missing("cpu,train")
