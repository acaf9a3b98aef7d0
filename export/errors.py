"""What an export refuses to do, each in one sentence for the person who asked."""


class ExportError(Exception):
    """An export that cannot be done as asked; nothing was changed."""


class ParityError(ExportError):
    """Exported graphs that do not compute what PyTorch computes; nothing was kept of them."""
