"""Exports a trained run to a bundle: ONNX graphs, shared weights and a manifest, verified against PyTorch."""

import sys
from typing import TYPE_CHECKING, Any

from engine.commands.parser import explain_missing

if TYPE_CHECKING:
    from export.modules import ExportOptions, ImageSpec, Vocabulary, Words, export_modules

__all__ = ["ExportOptions", "ImageSpec", "Vocabulary", "Words", "export_modules"]


def __getattr__(name: str) -> Any:
    """Imports PyTorch only when it is needed, so that commands can say what is missing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from export import modules

    return getattr(modules, name)


if sys.argv[:1] == ["-m"]:  # Python is about to run a command of this package
    explain_missing("cpu,train")
