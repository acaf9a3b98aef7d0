"""Self-critical training: the decoder samples captions and learns to make those with a high reward more probable.

The gradient is REINFORCE's (Rennie et al. 2017): the log-probability of a sampled sentence, weighted by its reward
(CIDEr-D and, if wanted, BLEU) minus a baseline: the mean reward of the image's other samples (Luo 2020). In rewards END
counts as a word, so that sentences which break off are penalised. Knows nothing of images, charts or commands.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.data.batches import Batch, CaptionTable
from training.loops.distributed import Processes
from training.loops.loop import Loop, Record, Watcher, check_shared
from training.loops.reward import Lexicon, Scorer
from training.loops.sampler import Sampler
from training.models.decoder import CaptionDecoder
from training.options import ScstOptions

Reward = Callable[[np.ndarray, Tensor], np.ndarray]
"""Scores sentences, int64 (rows, longest), an equal number for each of some images, int64 (images,)."""

ROWS_AT_ONCE = 80  # sentences of similar length per backward pass: more means more padding, fewer more calls


@dataclass(frozen=True, slots=True)
class RewardEpoch(Record):
    """Results of an epoch."""

    sample_reward: float  # mean of the sampled sentences, with the current weights; CIDEr-D is 0 to 10
    train_reward: float  # of greedy sentences for some training images after the epoch, as sample_reward
    validation_cider: float  # CIDEr-D only, of greedy sentences, without END; the mean over data sets
    sample_words: float


class SelfCritic(Loop[RewardEpoch]):
    """Trains a decoder for captions with high CIDEr-D."""

    record = RewardEpoch
    decoder: CaptionDecoder
    averaged: CaptionDecoder
    shown, watched = "reward", 1

    def __init__(
        self,
        decoder: CaptionDecoder,
        options: ScstOptions,
        train: CaptionTable,
        validation: CaptionTable,
        processes: Processes,
    ) -> None:
        check_shared(options.batch_size, f"{options.batch_size} images", processes)
        batches = options.batches or max(1, int(np.count_nonzero(train.weights)) // options.batch_size)
        decoder.dropout.p = options.dropout
        lower_frequent_words(decoder, train, options.logit_adjustment)
        super().__init__(decoder, options, batches, processes)
        self.options = options
        self.train_table = train
        self.validation_table = validation
        self._by_source = validation.by_source()
        lexicon = Lexicon(train.vocabulary)
        true = [lexicon.encode(texts, end=True) for texts in train.captions]
        self._rewarding = Scorer(true, sigma=options.sigma, power=options.rarity)
        self._validating = {
            source: Scorer([lexicon.encode(texts, end=False) for texts in table.captions])
            for source, table in self._by_source.items()
        }
        self._sampler = Sampler(train.vocabulary, options.max_words)
        self._greedy = Sampler(train.vocabulary, options.max_words, greedy=True)

    def _badness(self, epoch: RewardEpoch) -> float:
        return -epoch.validation_cider

    def validation_ciders(self) -> dict[str, float]:
        """Returns the mean CIDEr-D of greedy sentences for each data set's images, computed as in an evaluation."""

        def score(table: CaptionTable, scorer: Scorer) -> float:
            def cider(images: np.ndarray, said: Tensor) -> np.ndarray:
                return scorer.cider(*self._counted(images, said, end=False))

            return self._greedy_score(table, cider, len(table.names))

        return {source: score(table, self._validating[source]) for source, table in self._by_source.items()}

    def run_epoch(self, number: int, watch: Watcher | None) -> RewardEpoch:
        """See Loop."""
        began = time.perf_counter()
        table, share = self.train_table, self.processes.share
        batches = table.drawn(self._seed(number), self.batches, self.options.batch_size, share=share)
        (_, mean, words), rate = self._steps(number, batches, watch)
        count = min(int(np.count_nonzero(table.weights)), len(self.validation_table.names))
        train_reward = self._greedy_score(table, self.reward_of, count)
        seconds = round(time.perf_counter() - began, 3)
        ciders = self.validation_ciders()
        measured = mean, train_reward, fmean(ciders.values()), words
        several = ciders if len(ciders) > 1 else {}
        return RewardEpoch(
            number, *measured, learning_rate=rate, seconds=seconds, precision=self.precision, by_source=several
        )

    def take_step(self, batch: Batch, step: int) -> tuple[Tensor, float]:
        """Takes one optimiser step towards higher reward; its sums are loss, rewards, words and sentences."""
        features = torch.from_numpy(batch.features).to(self.processes.device)
        said, rewards, advantages = self.draw(features, batch.images)
        scale = 1 / (self.options.batch_size * self.options.samples)
        loss = self.loss(features, said, advantages * scale, drawn=True)
        if self.options.cross_entropy:
            true = torch.from_numpy(batch.tokens).to(self.processes.device)
            weight = self.options.cross_entropy / self.options.batch_size
            loss = loss + self.loss(features, true, torch.full((len(true),), weight, device=true.device), drawn=False)
        # Dividing by the mean caption length lets one learning rate and clip fit both this and cross-entropy.
        rate = self.descend(loss / float(self.train_table.lengths.mean() - 1), step)
        words = (said[:, 1:] != self.decoder.config.pad_id).sum()
        counts = [loss.detach().double(), torch.tensor(rewards.sum()), words.double(), torch.tensor(float(len(said)))]
        return torch.stack([count.to(features.device) for count in counts]), rate

    def draw(self, features: Tensor, images: np.ndarray) -> tuple[Tensor, np.ndarray, Tensor]:
        """Samples sentences for images of the training table and scores them.

        Returns the sentences int64 (images * samples, longest), their rewards (images, samples) and their rewards minus
        the baseline, float32 (images * samples,).
        """
        samples = self.options.samples
        self.decoder.eval()
        with self._autocast():
            said = self._sampler.say(self.decoder, features, samples)
        rewards = self.reward_of(images, said).reshape(-1, samples)
        baseline = (rewards.sum(axis=1, keepdims=True) - rewards) / (samples - 1)
        advantages = torch.from_numpy((rewards - baseline).ravel().astype(np.float32))
        return said, rewards, advantages.to(features.device)

    def loss(self, features: Tensor, said: Tensor, weights: Tensor, *, drawn: bool) -> Tensor:
        """Returns the sum of the sentences' negative log-probabilities, weighted by weights (rows,).

        said is int64 (rows, longest), from the sampler, an equal number of rows for each image of features (images,
        ...). For `drawn` sentences the probabilities are those of sampling: without the words that are never
        sampled.
        """
        words = self.train_table.vocabulary
        self.decoder.train()  # cuDNN's LSTM needs training mode for gradients
        images = torch.arange(len(said), device=said.device) // (len(said) // len(features))
        lengths = (said[:, 1:] != words.pad_id).sum(dim=1)
        total = torch.zeros((), device=said.device)
        grids = features.ndim > 2  # costly to start from: once per image, not once per sentence
        with self._autocast():
            started = self.decoder.start(features) if grids else None
            for rows in torch.split(lengths.argsort(stable=True), ROWS_AT_ONCE):
                tokens = said[rows, : int(lengths[rows].max()) + 1]
                keep = tokens[:, 1:] != words.pad_id
                if started is None:
                    logits = self.decoder(features[images[rows]], tokens[:, :-1], keep)
                else:
                    chosen = images[rows]  # gradients of index_select are much quicker than those of an index
                    state, context = (tuple(each.index_select(0, chosen) for each in part) for part in started)
                    logits = self.decoder.read(tokens[:, :-1], state, context, keep)
                logits = logits.float()  # (kept, vocabulary)
                if drawn:
                    logits[:, [words.pad_id, words.unk_id, words.start_id]] = -torch.inf
                losses = functional.cross_entropy(logits, tokens[:, 1:][keep], reduction="none")
                total = total + (losses * weights[rows].repeat_interleave(lengths[rows])).sum()
        return total

    def reward_of(self, images: np.ndarray, said: Tensor) -> np.ndarray:
        """Returns the rewards of sentences, an equal number for each training image: float64 (rows,)."""
        given = self._counted(images, said, end=True)
        rewards = self._rewarding.cider(*given)
        return rewards + self.options.bleu * self._rewarding.bleu(*given) if self.options.bleu else rewards

    def _counted(self, images: np.ndarray, said: Tensor, *, end: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns sentences in the form for a Scorer: images, words and lengths. `end` counts END as a word."""
        words = said[:, 1:].cpu().numpy()
        vocabulary = self.train_table.vocabulary
        counted = words != vocabulary.pad_id
        if not end:
            counted &= words != vocabulary.end_id
        return np.repeat(images, len(words) // len(images)), words, counted.sum(axis=1)

    def _greedy_score(self, table: CaptionTable, scorer: Reward, count: int) -> float:
        """Returns the mean score of the averaged weights' greedy sentences for `count` images spread over the table.

        Images with weight 0 do not count. Every process has to call this: each captions its share, and the mean is over
        all.
        """
        self.averaged.eval()
        device = self.processes.device
        drawn = np.flatnonzero(table.weights)
        images = drawn[np.linspace(0, len(drawn) - 1, count).astype(np.int64)][self.processes.share.of(count)]
        scores = np.zeros(len(images))
        for some in np.array_split(np.arange(len(images)), -(-len(images) // 256) or 1):
            if len(some):  # there may be fewer images than processes
                said = self._greedy.say(self.averaged, torch.from_numpy(table.features_of(images[some])).to(device))
                scores[some] = scorer(images[some], said)
        return float(self.processes.sum(torch.tensor(scores.sum(), device=device))) / count


def lower_frequent_words(decoder: CaptionDecoder, table: CaptionTable, amount: float) -> None:
    """Lowers the logit of every word by `amount` times the logarithm of its frequency in a table's captions.

    Menon et al. 2021 (arXiv:2007.07314) adjust a classifier's logits in this way, so that rare classes are not lost.
    The logit of END, which decides the length, stays.
    """
    words = table.vocabulary
    counts = np.bincount(table.tokens.ravel(), minlength=len(words))
    frequency: np.ndarray = np.log(counts + 1)
    frequency = frequency - frequency.mean()
    frequency[[words.end_id, words.pad_id, words.unk_id, words.start_id]] = 0
    with torch.no_grad():
        decoder.output.bias.sub_(amount * torch.from_numpy(frequency).to(decoder.output.bias))
