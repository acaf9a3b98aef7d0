"""A worker that hangs on the node of a Ray cluster that is to be killed."""

import time
from pathlib import Path

import ray

from serving.ray_parts import Part
from serving.ray_worker import Job, Worker

DOOMED = "DOOMED_NODE"


class HangsOnDoomedNode(Worker):
    """Writes down which node began what; on the doomed node, never ends a part after its first.

    Workers of other nodes wait until that has begun: then it was in the middle of a part when it was killed.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._notes = Path(job.output.place).parent / "notes"
        self._doomed = (self._notes / DOOMED).read_text() == ray.get_runtime_context().get_node_id()
        self._first = True

    def caption(self, part: Part) -> tuple[int, int]:
        """Captions a part as a worker does, or hangs."""
        if self._doomed:
            if not self._first:
                (self._notes / "hangs").touch()
                time.sleep(3600)  # until it is killed
            self._first = False
        deadline = time.monotonic() + 120
        while not self._doomed and not (self._notes / "hangs").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return super().caption(part)
