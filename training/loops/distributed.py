"""Training in one process or many: ranks, shares, and sums over all. Knows nothing of models or batches."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed
from torch.nn import Module

from training.data.share import Share


class DeviceError(RuntimeError):
    """A device that is not available; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Processes:
    """One of the processes that train together. torchrun starts several; otherwise there is only one."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """The share of a global batch that belongs to this process."""
        return Share(self.rank, self.size)

    def begin_alike(self, module: Module) -> None:
        """Gives the module the first process's weights."""
        if self.size == 1:
            return
        for tensor in module.state_dict().values():
            sent = tensor.contiguous()  # weights in channels-last order are not contiguous
            distributed.broadcast(sent, 0)
            tensor.copy_(sent)

    def sum_gradients(self, module: Module) -> None:
        """Replaces the gradients by their sum over all processes.

        It sends one message, in the order of the parameters. PyTorch's DistributedDataParallel reorders them after its
        first step, so that a resumed run of three or more processes would differ in the last digits.
        """
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        summed = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, total in zip(gradients, torch.split(summed, [one.numel() for one in gradients]), strict=True):
            gradient.copy_(total.view(gradient.shape))

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over all processes, the same everywhere."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Joins torchrun's process group if torchrun started this process, and leaves it at the end.

    "auto" takes a separate GPU if there is one, else the CPU, and nccl or gloo accordingly. Raises DeviceError if a
    process finds no separate GPU.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{local}"
    place = torch.device(device)
    if place.type == "cuda":
        found = torch.cuda.device_count()
        if (place.index or 0) >= found:
            raise DeviceError(
                f"there is no GPU for process {local + 1} on this machine, because PyTorch finds {found}: "
                "start fewer processes or choose --device cpu"
            )
        torch.cuda.set_device(place)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(0, 1, place)
        return
    # The first process may compute features for hours while the others wait.
    backend = "nccl" if place.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(days=2))
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), place)
    finally:
        distributed.destroy_process_group()
