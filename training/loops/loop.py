"""Shared parts of training runs: epochs, the optimiser step, averaged weights, checkpoints, resuming.

Knows nothing of losses or commands. All random numbers of an epoch come from (seed, epoch, process), so a resumed
run needs no generator state: an epoch repeated from the same weights and optimiser state is the same, bit for bit.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from training.data.batches import Batch
from training.loops.distributed import Processes
from training.loops.precision import BFLOAT16, agreed
from training.models import checkpoint
from training.models.finetune import FineTuned
from training.options import LoopOptions


class TrainingError(RuntimeError):
    """A run that cannot continue; the message says why and what to do."""


def check_shared(least: int, batch: str, processes: Processes) -> None:
    """Raises TrainingError if a batch is too small for each process to get a share.

    `batch` describes it; `least` is the smallest number of items in it that can be distributed.
    """
    if least < processes.size:
        raise TrainingError(
            f"a batch of {batch} is too small for {processes.size} processes: raise batch_size or start fewer processes"
        )


@dataclass(frozen=True, slots=True)
class Record:
    """The recorded numbers of an epoch."""

    epoch: int  # from 1
    learning_rate: float = field(kw_only=True)  # of its last batch
    seconds: float = field(kw_only=True)
    precision: str = field(kw_only=True)  # used in training
    by_source: dict[str, float] = field(default_factory=dict, kw_only=True)  # validation by data set, if several


R = TypeVar("R", bound=Record)
T = TypeVar("T")
Watcher = Callable[[int, float, float], None]  # batches done so far, the last one's loss or reward, learning rate


class Loop(ABC, Generic[R]):
    """What is trained, its optimiser and its history; `train` runs the epochs in the options."""

    record: type[R]  # of an epoch
    decoder: nn.Module  # what is trained: a decoder, or another module
    averaged: nn.Module  # the same with averaged weights
    shown, watched = "loss", 0  # what is watched while training, and which of the sums that is

    def __init__(self, decoder: nn.Module, options: LoopOptions, batches: int, processes: Processes) -> None:
        self.decoder = decoder.to(processes.device)
        processes.begin_alike(self.decoder)
        self.averaged = copy.deepcopy(self.decoder).requires_grad_(False) if options.ema else self.decoder
        self.processes = processes
        self.precision = agreed(processes, bf16=options.bf16)
        self.history: list[R] = []
        self._loop = options
        self.batches = batches  # per epoch
        self._optimizer = torch.optim.AdamW(
            self.parameter_groups(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns the trained parameters in groups, each with a factor ("scale") for the learning rate."""
        return [{"params": list(self.decoder.parameters()), "scale": 1.0}]

    @property
    def best(self) -> R | None:
        """The best epoch, the earliest of equals; None before the first."""
        return min(self.history, key=self._badness, default=None)

    @abstractmethod
    def _badness(self, epoch: R) -> float:
        """Returns what is lowest for the best epoch."""

    @abstractmethod
    def run_epoch(self, number: int, watch: Watcher | None) -> R:
        """Trains one epoch (numbered from 1), and validates."""

    @abstractmethod
    def take_step(self, batch: Batch, step: int) -> tuple[Tensor, float]:
        """Takes one optimiser step on this process's share of a batch.

        Returns the sums of what is measured, the loss first and the number of examples last, and the learning rate.
        """

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` epochs brought no improvement."""
        if self.best is None:
            return False
        waited = len(self.history) - self.best.epoch
        return len(self.history) >= self._loop.epochs or 0 < self._loop.patience <= waited

    def train(self, folder: Path, watch: Watcher | None = None) -> Iterator[R]:
        """Trains epoch after epoch, writing the last and the best checkpoint into the folder, and yields each.

        Raises TrainingError if the loss becomes NaN or infinite; the checkpoints stay unchanged.
        """
        while not self.finished:
            epoch = self.run_epoch(len(self.history) + 1, watch)
            self.history.append(epoch)
            if self.processes.first:
                self._save(folder)
            yield epoch

    def resume(self, folder: Path) -> None:
        """Continues from the folder's last checkpoint. Raises CheckpointError.

        The precision may be another one, with a warning: on another processor the last digits differ anyway.
        """
        tensors, notes = checkpoint.load_tensors(folder / checkpoint.LAST)
        checkpoint.restore_decoder(self.averaged, tensors)
        if self._loop.ema:
            raw = {f"decoder{name[3:]}": tensor for name, tensor in tensors.items() if name.startswith("raw.")}
            checkpoint.restore_decoder(self.decoder, raw)
        state = self._optimizer.state_dict()
        state["state"] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state["state"].setdefault(int(index), {})[key] = tensor
        self._optimizer.load_state_dict(state)
        self.history = [self.record(**epoch) for epoch in notes["history"]]
        was = self.history[-1].precision
        if was != self.precision and self.processes.first:
            print(
                f"the earlier epochs were computed in {was} and the next ones will be in {self.precision}: "
                "the last digits differ from those of an uninterrupted run",
                flush=True,
            )

    def _save(self, folder: Path) -> None:
        tensors = checkpoint.decoder_tensors(self.averaged)
        best = self.best
        if best is self.history[-1]:
            notes: dict[str, Any] = {"epoch": asdict(best)}
            if isinstance(self.averaged, FineTuned):  # before the decoder, which is useless without it
                notes["encoder"] = self.averaged.save_encoder(folder)
            checkpoint.save_tensors(folder / checkpoint.BEST, tensors, notes)
        if self._loop.ema:
            tensors |= {f"raw{name[7:]}": value for name, value in checkpoint.decoder_tensors(self.decoder).items()}
        tensors |= {
            f"optimizer.{index}.{key}": tensor
            for index, values in self._optimizer.state_dict()["state"].items()
            for key, tensor in values.items()
        }
        notes = {"history": [asdict(epoch) for epoch in self.history]}
        checkpoint.save_tensors(folder / checkpoint.LAST, tensors, notes)

    def _steps(self, number: int, batches: Iterable[Batch], watch: Watcher | None) -> tuple[list[float], float]:
        """Takes all steps of an epoch; returns the means of what `take_step` sums and the last learning rate."""
        done, rate, means = (number - 1) * self.batches, self._loop.learning_rate, [math.nan]
        totals = torch.zeros((), dtype=torch.float64, device=self.processes.device)
        with self._bar(batches, self.batches, f"epoch {number}/{self._loop.epochs}") as bar:
            for index, batch in enumerate(bar):
                sums, rate = self.take_step(batch, done + index)
                totals = totals + sums.double()
                if index % 20 == 19 or index + 1 == self.batches:  # reading a loss waits for the device
                    # Over all processes, so that none continues alone after a NaN loss.
                    means = self._means(totals.clone(), number)
                    bar.set_postfix({self.shown: f"{means[self.watched]:.3f}"})
                    last = self._means(sums.clone(), number)[self.watched]
                    if watch is not None:
                        watch(done + index + 1, last, rate)
        return means, rate

    def _means(self, sums: Tensor, epoch: int) -> list[float]:
        """Returns the means over all processes. Raises TrainingError if the loss is NaN or infinite."""
        *values, count = self.processes.sum(sums).tolist()
        if not math.isfinite(values[0]):
            raise TrainingError(
                f"the loss became {values[0]} in epoch {epoch}: lower the learning rate or the gradient clip; "
                "the checkpoints of earlier epochs are kept"
            )
        return [value / count for value in values]

    def _seed(self, number: int) -> np.random.Generator:
        """Seeds PyTorch for an epoch, differently in each process; returns a generator that is the same in all."""
        entropy = np.random.SeedSequence((self._loop.seed, number, self.processes.rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
        return np.random.default_rng((self._loop.seed, number))

    def _bar(self, batches: Iterable[T], total: int, title: str) -> "tqdm[T]":
        """A progress bar, only on a terminal and only in the first process."""
        hidden = None if self.processes.first else True
        return tqdm(batches, total=total, desc=title, unit="batch", leave=False, disable=hidden)

    def _autocast(self, training: bool = True) -> torch.autocast:
        """The autocast context for training; weights and measurements stay float32."""
        enabled = self.precision == BFLOAT16 and training
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=enabled)

    def rate_at(self, step: int) -> float:
        """Returns the learning rate of a step."""
        rate = self._loop.learning_rate
        if step < self._loop.warmup:
            rate *= (step + 1) / self._loop.warmup
        if self._loop.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / (self._loop.epochs * self.batches))))
        return rate

    def descend(self, loss: Tensor, step: int) -> float:
        """Takes one optimiser step on all processes' gradients, averages the weights, returns the learning rate.

        The average is an exponential moving average: average += (1 - d) (weights - average), where
        d = min(ema, (1 + step) / (10 + step)), so that early averages forget the initial weights.
        """
        rate = self.rate_at(step)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.processes.sum_gradients(self.decoder)
        if self._loop.gradient_clip:
            clip_grad_norm_(self.decoder.parameters(), self._loop.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self._optimizer.step()
        if self._loop.ema:
            kept = min(self._loop.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.averaged.parameters()), list(self.decoder.parameters()), 1 - kept)
        return rate
