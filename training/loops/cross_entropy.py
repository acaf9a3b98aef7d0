"""Cross-entropy training: epochs over a caption table. Knows nothing of images, charts or commands."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.batches import Batch, CaptionTable
from training.loops.distributed import Processes
from training.loops.loop import Loop, Record, Watcher, check_shared
from training.models.decoder import CaptionDecoder
from training.models.finetune import FineTuned
from training.options import TrainingOptions


@dataclass(frozen=True, slots=True)
class Epoch(Record):
    """Results of an epoch. Losses are in nats per token; accuracies are shares of next words predicted correctly.

    Validation figures are means over the data sets, if there are several.
    """

    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


class Trainer(Loop[Epoch]):
    """Trains a decoder to predict the next word of people's captions."""

    record = Epoch
    decoder: CaptionDecoder
    averaged: CaptionDecoder

    def __init__(
        self,
        decoder: CaptionDecoder,
        options: TrainingOptions,
        train: CaptionTable,
        validation: CaptionTable,
        processes: Processes,
    ) -> None:
        check_shared(options.batch_size, f"{options.batch_size} captions", processes)
        if options.finetune_encoder:
            images = len(train.names) // train.whole_batches(options.batch_size)
            check_shared(images, f"{options.batch_size} captions, which may be only {images} whole images,", processes)
        self.options = options
        super().__init__(decoder, options, options.batches, processes)
        self.train_table = train
        self.validation_table = validation
        self._by_source = validation.by_source()
        self._tokens = options.batch_size * (train.mean_length - 1)  # average per batch

    def _badness(self, epoch: Epoch) -> float:
        return epoch.validation_loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See Loop; the encoder's tail has a learning rate of its own."""
        options, decoder = self.options, self.decoder
        if not isinstance(decoder, FineTuned):
            return super().parameter_groups()
        tail = list(decoder.tail.parameters())
        known = {id(parameter) for parameter in tail}
        rest = [parameter for parameter in decoder.parameters() if id(parameter) not in known]
        scale = options.encoder_learning_rate / options.learning_rate
        return [{"params": rest, "scale": 1.0}, {"params": tail, "scale": scale}]

    def run_epoch(self, number: int, watch: Watcher | None) -> Epoch:
        """See Loop."""
        began = time.perf_counter()
        options, share = self.options, self.processes.share
        generator = self._seed(number)
        self.decoder.train()
        if options.finetune_encoder:
            batches = self.train_table.drawn_whole(generator, options.batches, options.batch_size, share=share)
        else:
            batches = self.train_table.drawn(
                generator, options.batches, options.batch_size, options.bucket, share=share
            )
        measured, rate = self._steps(number, batches, watch)
        validation = {source: self._means(self._validate(table), number) for source, table in self._by_source.items()}
        measured += np.mean(list(validation.values()), axis=0).tolist()  # loss and accuracy
        seconds = round(time.perf_counter() - began, 3)
        losses = {source: loss for source, (loss, _) in validation.items()} if len(validation) > 1 else {}
        return Epoch(number, *measured, learning_rate=rate, seconds=seconds, precision=self.precision, by_source=losses)

    def take_step(self, batch: Batch, step: int) -> tuple[Tensor, float]:
        """Takes one optimiser step on the global batch's loss.

        The sum over tokens is divided by the average number of tokens in a batch, not by this batch's, so that words in
        a batch of short captions do not weigh more than words in a batch of long ones.
        """
        counts = self.counts(self.decoder, batch, training=True)
        rate = self.descend(counts[0] * (1 / self._tokens), step)
        return counts.detach(), rate

    def counts(self, module: nn.Module, batch: Batch, *, training: bool = False) -> Tensor:
        """Returns the loss summed over tokens, the correctly predicted words, and the tokens, as one tensor (3,).

        In training, the loss uses label smoothing and the precision in the options.
        """
        device = self.processes.device
        features = torch.from_numpy(batch.features).to(device)
        shared = {} if batch.owners is None else {"owners": torch.from_numpy(batch.owners).to(device)}
        tokens = torch.from_numpy(batch.tokens).to(device)
        keep = tokens[:, 1:] != self.decoder.config.pad_id
        targets = tokens[:, 1:][keep]  # (kept,)
        smoothing = self.options.label_smoothing if training else 0.0
        with self._autocast(training):
            logits = module(features, tokens[:, :-1], keep, **shared).float()  # (kept, vocabulary)
        loss = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
        right = (logits.detach().argmax(dim=-1) == targets).sum()
        return torch.stack([loss, right.to(loss.dtype), keep.sum().to(loss.dtype)])

    @torch.no_grad()
    def _validate(self, table: CaptionTable) -> Tensor:
        """Returns this process's counts over a fixed set of captions of a table, with the averaged weights."""
        options = self.options
        generator = np.random.default_rng(options.seed)
        totals = torch.zeros(3, dtype=torch.float64, device=self.processes.device)
        self.averaged.eval()
        whole = bool(options.finetune_encoder)
        share = self.processes.share
        batches = table.sampled(generator, options.validation_batches, options.batch_size, whole=whole, share=share)
        for batch in self._bar(batches, options.validation_batches, "validation"):
            if len(batch.tokens):  # the last batch may be smaller than the number of processes
                totals += self.counts(self.averaged, batch)
        return totals
