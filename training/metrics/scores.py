"""Standard scores of captions against references: BLEU, METEOR, ROUGE-L and CIDEr.

The figures are pycocoevalcap's. Knows no images and no models; resampling is in training.metrics.bootstrap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.metrics.counts import ImageCounts, Rows
from training.metrics.java import MetricsError, package
from training.metrics.meteor import meteor_rows
from training.metrics.tokens import PTB, SIMPLE, Tokens, find_tokeniser

__all__ = ["PTB", "SIMPLE", "MetricsError", "Scores", "score_captions"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Corpus scores by their usual names, each from 0 to 1 (CIDEr to 10); `notes` say what was skipped and why.

    `counts` are the counts of each image behind them.
    """

    values: dict[str, float]
    tokeniser: str
    notes: tuple[str, ...]
    counts: ImageCounts = field(compare=False, repr=False)

    @property
    def cider(self) -> float:
        """CIDEr of the corpus, the mean over images."""
        return self.values["CIDEr"]

    def per_image(self) -> dict[str, dict[str, float]]:
        """Returns image -> metric -> the image's score."""
        columns = {metric: values.tolist() for metric, values in self.counts.per_image().items()}
        rows = zip(*columns.values(), strict=True)
        return {name: dict(zip(columns, row, strict=True)) for name, row in zip(self.counts.images, rows, strict=True)}


def score_captions(references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]) -> Scores:
    """Scores one candidate for each image against its references. Raises MetricsError.

    Without Java the sentences are split by this project's own rule and METEOR is skipped; the notes say so.
    """
    if references.keys() != candidates.keys():
        odd = sorted(references.keys() ^ candidates.keys())
        raise MetricsError(f"every image needs a caption and references, but {len(odd)} lack one: {', '.join(odd[:5])}")
    if not candidates or not all(references.values()):
        raise MetricsError("there is nothing to score: no captions, or images without references")
    package()  # fails early, with install instructions
    names = list(candidates)
    written = {name: list(references[name]) for name in names}
    said = {name: [candidates[name]] for name in names}
    notes: list[str] = []
    tokeniser = find_tokeniser()
    truths, guesses = tokeniser(written), tokeniser(said)
    meteor = None
    if tokeniser.java is None:
        notes += ["METEOR is skipped because it needs Java", tokeniser.note]
    else:
        try:
            meteor = meteor_rows(tokeniser.java, truths, guesses)
        except MetricsError as error:
            notes.append(f"METEOR is skipped: {error}")
    counts = ImageCounts(tuple(names), _bleu_rows(truths, guesses), meteor, _means(truths, guesses))
    return Scores(counts.corpus(), tokeniser.name, tuple(notes), counts)


def _bleu_rows(truths: Tokens, guesses: Tokens) -> Rows:
    """Returns pycocoevalcap's BLEU counts of each image: float64 (images, 10)."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for name, texts in truths.items():
        scorer += (guesses[name][0], texts)
    return np.array(
        [
            [*said["correct"], *said["guess"], said["testlen"], _closest(said["reflen"], said["testlen"])]
            for said in scorer.ctest
        ],
        dtype=np.float64,
    )


def _closest(lengths: Sequence[int], said: int) -> int:
    return min((abs(length - said), length) for length in lengths)[1]


def _means(truths: Tokens, guesses: Tokens) -> dict[str, Rows]:
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    scorers = {"ROUGE-L": Rouge(), "CIDEr": Cider()}
    return {name: np.asarray(scorer.compute_score(truths, guesses)[1]) for name, scorer in scorers.items()}
