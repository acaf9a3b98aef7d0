"""Ray Data: a pool of processes, on one machine or many, each with a captioner.

python examples/ray_batches.py ADDRESS IMAGE…: the ADDRESS local starts Ray on this machine.
"""

import sys
from typing import Any

import ray
import ray.data

from engine import Captioner, RuntimeOptions

if len(sys.argv) < 3:
    sys.exit(__doc__)


class Captions:
    """What each process of the pool does."""

    def __init__(self) -> None:
        self.captioner = Captioner(runtime=RuntimeOptions(threads=1))  # as many as the num_cpus of a process

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns the captions of a batch; an image that cannot be read has an empty one."""
        captions = self.captioner.caption([str(path) for path in batch["path"]], on_error="return")
        return {**batch, "caption": [getattr(caption, "text", "") for caption in captions]}


address, *paths = sys.argv[1:]
ray.init(address)  # without an address Ray joins any cluster that it finds on this machine
images = ray.data.from_items([{"path": path} for path in paths])
pool = ray.data.ActorPoolStrategy(size=1)
for row in images.map_batches(Captions, batch_size=32, num_cpus=1, compute=pool).iter_rows():
    print(row["path"], row["caption"], sep="\t")
