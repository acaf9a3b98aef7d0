"""The layouts by name."""

from collections.abc import Callable, Mapping

from export.checkpoints import keras_merge, ruotianluo, sgrvinod, yunjey
from export.checkpoints.imported import Imported, Source

LAYOUTS: Mapping[str, Callable[[Source], Imported]] = {
    "yunjey": yunjey.read,
    "sgrvinod": sgrvinod.read,
    "ruotianluo": ruotianluo.read,
    "keras-merge": keras_merge.read,
}
