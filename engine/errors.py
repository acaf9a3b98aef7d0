"""The engine's errors. All derive from one root; each leaf is also the builtin error a caller would expect."""

from functools import partial


class EngineError(Exception):
    """Root of the engine's errors."""


class ImageError(EngineError, ValueError):
    """An image that cannot be read. `source` names it; `entry` is its position in the batch, if it was in one.

    reason: what is wrong with it. advice: what the calling program can do about it; mostly "".
    """

    def __init__(self, reason: str, *, source: str, entry: int | None = None, advice: str = "") -> None:
        self.reason = reason
        self.source = source
        self.entry = entry
        self.advice = advice
        where = source if entry is None else f"entry {entry} ({source})"
        super().__init__(f"{where}: {self.explanation}")

    def __reduce__(self) -> tuple[object, ...]:  # needed to pickle keyword arguments
        return partial(ImageError, source=self.source, entry=self.entry, advice=self.advice), (self.reason,)

    @property
    def explanation(self) -> str:
        """The reason and the advice."""
        return "; ".join(filter(None, (self.reason, self.advice)))

    def at(self, entry: int | None) -> "ImageError":
        """Returns this error with the batch entry it belongs to."""
        placed = ImageError(self.reason, source=self.source, entry=entry, advice=self.advice)
        placed.__cause__ = self.__cause__
        return placed


class BundleError(EngineError, ValueError):
    """A bundle that is missing, corrupt or of another format version; the message lists every problem found."""


class ProviderError(EngineError, RuntimeError):
    """A provider that was asked for by name and cannot run here."""


class OptionsError(EngineError, ValueError):
    """An option or argument that makes no sense.

    reason: what is wrong, without the value. name, value: those of the option, where it is about one; name is "" where
    it is not. The message says all three, after the owner, what Python calls the record that the option belongs to.
    """

    def __init__(self, reason: str, *, name: str = "", value: object = None, owner: str = "") -> None:
        self.reason = reason
        self.name = name
        self.value = value
        given = f"{name}={value!r}"
        where = f"{owner}({given})" if owner else given
        super().__init__(f"{where}: {reason}" if name else reason)


class OverloadedError(EngineError, RuntimeError):
    """A request that was refused because the queue is full; send it again later."""


class DeadlineError(EngineError, TimeoutError):
    """A request that was not answered within its timeout."""


class ClosedError(EngineError, RuntimeError):
    """A request to a scheduler that is closed."""


class DeviceError(EngineError, RuntimeError):
    """A run that failed on the device; `__cause__` is the runtime's error. Other requests may still succeed."""


class StoreError(EngineError, RuntimeError):
    """An index of photographs that cannot be opened, read or written; the message says why and what to do."""


class DocumentError(EngineError, ValueError):
    """A file that a caption cannot be written to; the message is the reason, without the file's name."""


class RefusalError(Exception):
    """A reason for refusing an image, and advice. Internal: `load_pixels` turns it into an ImageError."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice
