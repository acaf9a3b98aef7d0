"""Ray Data: a pool of processes, on one machine or many, each with a captioner.

python examples/ray_batches.py FOLDER [ADDRESS]: without an ADDRESS Ray starts on this machine.
"""

import sys
from typing import Any

import ray
import ray.data

from engine import Captioner, RuntimeOptions


class Captions:
    """What each process of the pool does."""

    def __init__(self) -> None:
        self.captioner = Captioner(runtime=RuntimeOptions(threads=1))  # as many as the num_cpus of a process

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns the captions of a batch; an image that cannot be read has an empty one."""
        captions = self.captioner.caption(list(batch["bytes"]), on_error="return")
        return {"path": batch["path"], "caption": [getattr(caption, "text", "") for caption in captions]}


folder, address = [*sys.argv[1:], "local"][:2]
ray.init(address)  # without it Ray joins any cluster that it finds on this machine
images = ray.data.read_binary_files(folder, include_paths=True)
pool = ray.data.ActorPoolStrategy(size=1)
for row in images.map_batches(Captions, batch_size=32, num_cpus=1, compute=pool).iter_rows():
    print(row["path"], row["caption"], sep="\t")
