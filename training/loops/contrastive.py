"""Contrastive training of a joint space of texts and images. Knows nothing of charts or commands.

In a batch each caption has to be told which image is its own, and each image which captions are (InfoNCE: van den Oord
et al. 2018, arXiv:1807.03748; in both directions as in CLIP, Radford et al. 2021, arXiv:2103.00020). Sentences without
photographs teach the texts' side: two of the same photograph have to find each other.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.data.batches import Batch, CaptionTable
from training.data.paraphrases import Pairs, Paraphrases
from training.loops.distributed import Processes
from training.loops.loop import Loop, Record, TrainingError, Watcher
from training.metrics.retrieval import Recall, image_ranks, text_ranks
from training.models.joint import JointSpace
from training.options import JointOptions

AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class JointEpoch(Record):
    """Results of an epoch: the loss in nats, and on the validation list the recall of images by texts, from 0 to 1.

    text_recall is that of texts by images. All are means over the data sets, if there are several. found: both for each
    data set, as in training.metrics.retrieval.
    """

    train_loss: float
    recall_1: float
    recall_5: float
    recall_10: float
    text_recall_1: float
    text_recall_10: float
    found: dict[str, dict[str, dict[str, float]]]


class JointTrainer(Loop[JointEpoch]):
    """Trains a space; sentences may be None."""

    record = JointEpoch
    decoder: JointSpace
    averaged: JointSpace

    def __init__(
        self,
        space: JointSpace,
        options: JointOptions,
        train: CaptionTable,
        validation: CaptionTable,
        sentences: Paraphrases | None,
        processes: Processes,
    ) -> None:
        if processes.size > 1:
            raise TrainingError("a joint space is trained in one process: it takes minutes on a CPU")
        self.options = options
        self.train_table = train
        self.sentences = sentences
        self._validation = validation.by_source()
        batches = max(1, len(train.tokens) // options.batch_size)
        super().__init__(space, options, batches, processes)
        self._pairs = np.random.default_rng(options.seed)

    def _badness(self, epoch: JointEpoch) -> float:
        return -(epoch.recall_1 + epoch.recall_5 + epoch.recall_10)

    def run_epoch(self, number: int, watch: Watcher | None) -> JointEpoch:
        """See Loop."""
        began = time.perf_counter()
        options = self.options
        generator = self._seed(number)
        self._pairs = np.random.default_rng((options.seed, number, 1))
        self.decoder.train()
        batches = self.train_table.drawn(generator, self.batches, options.batch_size, options.bucket)
        (loss,), rate = self._steps(number, batches, watch)
        found = {source: self._recalls(table) for source, table in self._validation.items()}
        images, texts = ([both[side] for both in found.values()] for side in ("images", "texts"))
        return JointEpoch(
            number,
            train_loss=loss,
            recall_1=_mean(images, "at_1"),
            recall_5=_mean(images, "at_5"),
            recall_10=_mean(images, "at_10"),
            text_recall_1=_mean(texts, "at_1"),
            text_recall_10=_mean(texts, "at_10"),
            found=found,
            learning_rate=rate,
            seconds=round(time.perf_counter() - began, 3),
            precision=self.precision,
        )

    def take_step(self, batch: Batch, step: int) -> tuple[Tensor, float]:
        """See Loop."""
        device, space = self.processes.device, self.decoder
        kept, owners = np.unique(batch.images, return_inverse=True)
        first = np.unique(batch.images, return_index=True)[1]
        tokens = torch.from_numpy(batch.tokens).to(device)
        lengths = self._lengths(tokens)
        own = torch.from_numpy(owners[:, None] == np.arange(len(kept))).to(device)  # (captions, images)
        with self._autocast():
            images = space.images(torch.from_numpy(batch.features[first]).to(device))
            logits = space.texts(tokens, lengths) @ images.T
        logits = space.scale * logits.float()
        loss = (_match(logits, own) + _match(logits.T, own.T)) / 2
        if self.sentences is not None and self.options.paraphrase_weight:
            pairs = self.sentences.drawn(self._pairs, self.options.paraphrases)
            loss = loss + self.options.paraphrase_weight * self._paraphrase_loss(pairs)
        rate = self.descend(loss, step)
        count = len(batch.tokens)
        return torch.stack([loss.detach() * count, torch.tensor(float(count), device=device)]), rate

    def _lengths(self, tokens: Tensor) -> Tensor:
        """Returns the numbers of tokens before the padding, int64 (captions,)."""
        words = self.train_table.vocabulary
        said = (tokens != words.pad_id).sum(dim=1)
        if words.pad_id == words.end_id:  # the first of them ends the caption
            said = (said + 1).clamp(max=tokens.shape[1])
        return said

    def _paraphrase_loss(self, pairs: Pairs) -> Tensor:
        device, space = self.processes.device, self.decoder
        with self._autocast():
            vectors = space.texts(torch.from_numpy(pairs.tokens).to(device), torch.from_numpy(pairs.lengths).to(device))
            some, others = vectors.chunk(2)
            logits = some @ others.T
        logits = space.scale.detach() * logits.float()
        own = torch.eye(len(logits), dtype=torch.bool, device=device)
        return (_match(logits, own) + _match(logits.T, own)) / 2

    def _recalls(self, table: CaptionTable) -> dict[str, dict[str, float]]:
        """Returns the recall of a table's images by its texts, and of its texts by its images."""
        similarity = self._similarity(table)
        owners = table.images_of(np.arange(len(table.tokens)))
        ranks = {"images": image_ranks(similarity, owners), "texts": text_ranks(similarity, owners)}
        return {
            side: {name: round(getattr(Recall.of(each), name), 4) for name in Recall.__slots__}
            for side, each in ranks.items()
        }

    @torch.no_grad()
    def _similarity(self, table: CaptionTable) -> np.ndarray:
        """Returns the cosine of each text with each image: float32 (texts, images)."""
        device, space = self.processes.device, self.averaged.eval()
        tokens, lengths = torch.from_numpy(table.tokens), torch.from_numpy(table.lengths)
        texts = [
            space.texts(tokens[i : i + AT_ONCE].to(device), lengths[i : i + AT_ONCE].to(device))
            for i in range(0, len(tokens), AT_ONCE)
        ]
        places = np.arange(len(table.names))
        images = [
            space.images(torch.from_numpy(table.features_of(places[i : i + AT_ONCE])).to(device))
            for i in range(0, len(places), AT_ONCE)
        ]
        cosines: np.ndarray = (torch.cat(texts) @ torch.cat(images).T).cpu().numpy()
        return cosines


def _match(logits: Tensor, own: Tensor) -> Tensor:
    """Returns how improbable a row's own columns are, in nats: the mean over them, then over the rows."""
    log_probs = functional.log_softmax(logits, dim=1)
    return -(log_probs.masked_fill(~own, 0).sum(dim=1) / own.sum(dim=1)).mean()


def _mean(recalls: list[dict[str, float]], name: str) -> float:
    return float(np.mean([recall[name] for recall in recalls]))
