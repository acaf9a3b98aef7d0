"""What rows have besides captions where an index of photographs is to be made of them: columns, and whose they are.

`python -m engine index --from-parquet` reads this; engine/search/parquet.py has the other side.
"""

import hashlib
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from engine import Captioner
from serving.ray_fetch import Fetched
from serving.ray_output import SCHEMA

HYPOTHESES = 3  # that beam search keeps if nobody says how many: what an index keeps of a photograph
PART_BYTES = 64 * 1024**2  # of features in a part of the default size, which a worker holds in memory
COLUMNS = "path", "sha256", "size", "modified", "features"


@dataclass(frozen=True, slots=True)
class Source:
    """The bundle that features are by. sha256: of its manifest, which has the checksum of every other file."""

    name: str
    sha256: str
    feature_shape: tuple[int, ...]

    @classmethod
    def of(cls, captioner: Captioner) -> "Source":
        """Returns the bundle of a captioner."""
        manifest = captioner.bundle.manifest
        digest = hashlib.sha256((captioner.bundle.path / "manifest.json").read_bytes()).hexdigest()
        return cls(manifest.name, digest, manifest.feature_shape)

    @property
    def row_bytes(self) -> int:
        """Bytes that an image's features take."""
        return 2 * prod(self.feature_shape)

    def as_record(self, root: str) -> dict[str, Any]:
        """Returns what the record of a run says of the features in it. root: the folder of the paths in `path`."""
        return {"bundle": self.name, "manifest sha256": self.sha256, "root": root}

    def schema(self) -> pa.Schema:
        """Returns the columns of an output with features, with the bundle in the metadata.

        path: of the image file, in INPUT's folder, absolute or a URI; null for an image in a table. modified: in
        nanoseconds since 1970. features: float16, little-endian, in the shape that the metadata say; a type that all
        readers of Parquet open, which cannot be said of float16.
        """
        kinds = pa.string(), pa.string(), pa.int64(), pa.int64(), pa.binary(self.row_bytes)
        shape = ",".join(map(str, self.feature_shape))
        about = {"bundle": self.name, "manifest_sha256": self.sha256, "feature_shape": shape}
        fields = [pa.field(name, kind) for name, kind in zip(COLUMNS, kinds, strict=True)]
        return pa.schema([*SCHEMA, *fields], metadata=about)


def as_columns(path: str | None, fetched: Fetched, features: np.ndarray | None) -> dict[str, Any]:
    """Returns the columns of an image. features: float32 of any shape; None if it could not be read."""
    stored = None if features is None else features.astype("<f2").tobytes()
    values = path, fetched.sha256, fetched.size, fetched.modified, stored
    return dict(zip(COLUMNS, values, strict=True))
