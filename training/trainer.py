"""The training loop: epochs over a caption table, checkpoints, resuming. Knows nothing of images, charts or commands.

Every random number of an epoch comes from (seed, epoch, process), so that a resumed run needs no generator's state:
repeating an epoch from the weights and the optimiser that it began with is the same epoch, bit for bit.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from training import checkpoint
from training.batches import Batch, CaptionTable
from training.distributed import Processes
from training.model import CaptionDecoder
from training.options import TrainingOptions


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to. Losses are in nats a token, accuracies the share of next words guessed."""

    epoch: int  # from 1
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float  # of its last batch
    seconds: float


Watcher = Callable[[int, float, float], None]  # batches done in all, running loss, learning rate


class Trainer:
    """A decoder, its optimiser and its history; `train` runs epochs until the options' end."""

    def __init__(
        self,
        decoder: CaptionDecoder,
        options: TrainingOptions,
        train: CaptionTable,
        validation: CaptionTable,
        processes: Processes,
    ) -> None:
        if options.batch_size < processes.size:
            raise TrainingError(
                f"a batch of {options.batch_size} cannot be shared by {processes.size} processes: "
                "raise batch_size or start fewer"
            )
        self.decoder = decoder.to(processes.device)
        self.options = options
        self.train_table = train
        self.validation_table = validation
        self.processes = processes
        self.history: list[Epoch] = []
        self._module = processes.wrap(self.decoder)
        self._optimizer = torch.optim.AdamW(
            self.decoder.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        )

    @property
    def best(self) -> Epoch | None:
        """The epoch of the lowest validation loss, the earlier one of equals; None before the first."""
        return min(self.history, key=lambda epoch: epoch.validation_loss, default=None)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or too many went by without a better validation loss."""
        if self.best is None:
            return False
        waited = len(self.history) - self.best.epoch
        return len(self.history) >= self.options.epochs or 0 < self.options.patience <= waited

    def train(self, folder: Path, watch: Watcher | None = None) -> Iterator[Epoch]:
        """Trains epoch after epoch, writing the last and the best checkpoint into the folder, and yields each.

        Raises TrainingError when the loss is no number any more; the checkpoints stay as they were.
        """
        while not self.finished:
            epoch = self._epoch(len(self.history) + 1, watch)
            self.history.append(epoch)
            if self.processes.first:
                self._save(folder)
            yield epoch

    def resume(self, folder: Path) -> None:
        """Goes on where the folder's last checkpoint stood. Raises CheckpointError."""
        tensors, notes = checkpoint.load_tensors(folder / checkpoint.LAST)
        checkpoint.restore_decoder(self.decoder, tensors)
        state = self._optimizer.state_dict()
        state["state"] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state["state"].setdefault(int(index), {})[key] = tensor
        self._optimizer.load_state_dict(state)
        self.history = [Epoch(**epoch) for epoch in notes["history"]]

    def _save(self, folder: Path) -> None:
        decoder = checkpoint.decoder_tensors(self.decoder)
        best = self.best
        if best is self.history[-1]:
            checkpoint.save_tensors(folder / checkpoint.BEST, decoder, {"epoch": asdict(best)})
        optimizer = {
            f"optimizer.{index}.{key}": tensor
            for index, values in self._optimizer.state_dict()["state"].items()
            for key, tensor in values.items()
        }
        notes = {"history": [asdict(epoch) for epoch in self.history]}
        checkpoint.save_tensors(folder / checkpoint.LAST, decoder | optimizer, notes)

    def _epoch(self, number: int, watch: Watcher | None) -> Epoch:
        began = time.perf_counter()
        options = self.options
        entropy = np.random.SeedSequence((options.seed, number, self.processes.rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))  # dropout
        generator = np.random.default_rng((options.seed, number))  # the same batches in every process
        done = (number - 1) * options.batches
        rate = options.learning_rate
        train_loss = train_accuracy = math.nan
        totals = torch.zeros(3, dtype=torch.float64, device=self.processes.device)  # loss, right words, tokens
        self._module.train()
        batches = self.train_table.drawn(generator, options.batches, options.batch_size)
        with self._bar(batches, options.batches, f"epoch {number}/{options.epochs}") as bar:
            for index, batch in enumerate(bar):
                rate = self._learning_rate(done + index)
                counts = self._step(batch, rate)
                totals += counts
                if index % 20 == 19 or index + 1 == options.batches:  # reading a loss waits for the device
                    loss = float(counts[0] / counts[2].clamp(min=1))
                    # Of all processes, so that none goes on alone when the loss is no number.
                    train_loss, train_accuracy = self._means(totals.clone(), number)
                    bar.set_postfix(loss=f"{train_loss:.3f}")
                    if watch is not None:
                        watch(done + index + 1, loss, rate)
        validation_loss, validation_accuracy = self._means(self._validate(), number)
        seconds = round(time.perf_counter() - began, 3)
        return Epoch(number, train_loss, train_accuracy, validation_loss, validation_accuracy, rate, seconds)

    def _bar(self, batches: Iterator[Batch], total: int, title: str) -> "tqdm[Batch]":
        """A progress bar, only on a terminal and only in the first process."""
        hidden = None if self.processes.first else True
        return tqdm(batches, total=total, desc=title, unit="batch", leave=False, disable=hidden)

    def _learning_rate(self, step: int) -> float:
        if self.options.schedule == "constant":
            return self.options.learning_rate
        share = step / (self.options.epochs * self.options.batches)
        return self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * share))

    def _step(self, batch: Batch, rate: float) -> Tensor:
        """Takes one step down the gradient of the global batch's mean loss; returns this process's counts."""
        counts = self._counts(self._module, self._share(batch), self.options.label_smoothing)
        pad = self.decoder.config.pad_id
        tokens = int((batch.tokens[:, 1:] != pad).sum())  # of the global batch, which every process draws
        self._optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel divides the summed gradients by the processes; this undoes it.
        torch.autograd.backward(counts[0] * (self.processes.size / tokens))
        if self.options.gradient_clip:
            clip_grad_norm_(self.decoder.parameters(), self.options.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return counts.detach()

    def _share(self, batch: Batch) -> Batch:
        return batch.part(*self.processes.slice(len(batch.tokens)))

    def _counts(self, module: nn.Module, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """Returns loss summed over tokens, next words guessed right, and tokens, as one tensor (3,)."""
        device = self.processes.device
        features = torch.from_numpy(batch.features).to(device)
        tokens = torch.from_numpy(batch.tokens).to(device)
        keep = tokens[:, 1:] != self.decoder.config.pad_id  # (examples, length)
        targets = tokens[:, 1:][keep]  # (kept,)
        logits = module(features, tokens[:, :-1], keep)  # (kept, vocabulary)
        loss = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
        right = (logits.detach().argmax(dim=-1) == targets).sum()
        return torch.stack([loss, right.to(loss.dtype), keep.sum().to(loss.dtype)])

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """Returns this process's counts over the same validation captions every time."""
        options = self.options
        generator = np.random.default_rng(options.seed)
        totals = torch.zeros(3, dtype=torch.float64, device=self.processes.device)
        self.decoder.eval()
        batches = self.validation_table.sampled(generator, options.validation_batches, options.batch_size)
        for batch in self._bar(batches, options.validation_batches, "validation"):
            share = self._share(batch)
            if len(share.tokens):  # the last batch may be smaller than the number of processes
                totals += self._counts(self.decoder, share)
        return totals

    def _means(self, totals: Tensor, epoch: int) -> tuple[float, float]:
        """Returns mean loss and accuracy over all processes. Raises TrainingError for a loss that is no number."""
        loss, right, tokens = self.processes.sum(totals).tolist()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {epoch}: lower the learning rate or the gradient clip; "
                "the checkpoints of earlier epochs are kept"
            )
        return loss / tokens, right / tokens
