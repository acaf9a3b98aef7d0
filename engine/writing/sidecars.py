"""Which sidecar belongs to which photograph, and captions written there. Knows nothing of what a sidecar says."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import DocumentError
from engine.result import Caption
from engine.writing.document import check_writable, read_file, replace_file
from engine.writing.xmp import Sidecar

SUFFIXES = (".xmp", ".XMP")


def sidecar_path(photograph: Path, suffixes: Collection[str]) -> Path:
    """Returns the sidecar of a photograph: x.jpg.xmp, or an x.xmp that is there if x.jpg.xmp is not.

    Of two photographs x.jpg and x.png, neither owns x.xmp, since programs would show its description for both. A raw
    file beside a photograph does not count: both are the same picture. suffixes: those of photographs.
    """
    for suffix in SUFFIXES:
        if (own := photograph.with_name(photograph.name + suffix)).exists():
            return own
    for suffix in SUFFIXES:
        if (shared := photograph.with_suffix(suffix)).exists() and not _has_twin(photograph, suffixes):
            return shared
    return photograph.with_name(photograph.name + SUFFIXES[0])


def _has_twin(photograph: Path, suffixes: Collection[str]) -> bool:
    """Says whether another photograph has the same name but for its suffix."""
    others = (photograph.with_suffix(each) for suffix in suffixes for each in (suffix, suffix.upper()))
    return any(other.exists() and not other.samefile(photograph) for other in others)  # x.jpg may be found as x.JPG too


@dataclass(slots=True)
class Sidecars:
    """Writes captions to sidecars, and counts. A sidecar that is out of order is left as it is and costs no other.

    language: of the captions, as in "en". overwrite: descriptions that are there are replaced, not kept. suffixes:
    those of photographs. failed: sidecars that could not be written, each with its reason.
    """

    language: str
    overwrite: bool
    suffixes: Collection[str]
    written: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)

    def wants(self, photograph: str) -> bool:
        """Says whether a caption of this photograph would be written; notes it if not."""
        sidecar: Path | None = None
        try:
            if not Path(photograph).exists():
                return True  # captioning it will say so
            sidecar = sidecar_path(Path(photograph), self.suffixes)
            if sidecar.exists():
                is_kept = Sidecar.of(read_file(sidecar)).is_described(self.language) and not self.overwrite
                self.kept += is_kept
                if not is_kept:
                    check_writable(sidecar)
                return not is_kept
        except DocumentError as error:
            self.failed.append((str(sidecar or photograph), str(error)))
            return False
        except (OSError, ValueError):  # no name that a file can have, or a folder that cannot be searched
            return True
        return True

    def add(self, name: str, caption: Caption) -> None:
        """Writes a caption to the sidecar of this photograph."""
        sidecar = Path(name)
        try:
            sidecar = sidecar_path(Path(name), self.suffixes)
            before = read_file(sidecar) if sidecar.exists() else None
            document = Sidecar.new() if before is None else Sidecar.of(before)
            if document.is_described(self.language) and not self.overwrite:
                self.kept += 1  # written since, by another program or for the same photograph, named twice
                return
            data = document.describe(caption.text, self.language, overwrite=self.overwrite)
            if data != before:
                replace_file(sidecar, data)
            self.written += 1
        except DocumentError as error:
            self.failed.append((str(sidecar), str(error)))
        except OSError as error:
            self.failed.append((str(sidecar), f"cannot be written: {error.strerror or error}"))

    def close(self) -> None:
        """Does nothing: each sidecar is written at once."""
