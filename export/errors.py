"""Errors of an export; each message is one sentence for the person who ran it."""


class ExportError(Exception):
    """An export that cannot be done as requested; nothing was changed."""


class ParityError(ExportError):
    """Exported graphs that do not match PyTorch's results; nothing was written."""
