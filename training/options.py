"""What a training run is made of. Owns the options' names, defaults and limits; knows nothing of how they are used."""

from dataclasses import dataclass, field, fields
from typing import Any

from training.model import DecoderConfig


def _option(default: Any, text: str) -> Any:
    """A field whose metadata carries the sentence that --help prints."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Everything that decides a run's numbers: two runs with equal options on equal data are the same run.

    Raises ValueError naming the field whose value makes no sense.
    """

    encoder: str = _option("efficientnet_lite0", "image encoder by name")
    encoder_weights: str = _option("pretrained", 'its weights: "pretrained", "random" or a file')
    flip: bool = _option(False, "train on the photographs mirrored left to right too")
    epochs: int = _option(30, "epochs in all; a resumed run may raise it")
    batches: int = _option(1000, "batches in an epoch")
    batch_size: int = _option(64, "images in a batch, over all processes together")
    validation_batches: int = _option(100, "batches of validation captions after each epoch, at most")
    max_words: int = _option(20, "captions are cut at this many words")
    min_count: int = _option(5, "words seen less often are unknown")
    learning_rate: float = _option(1e-3, "Adam's learning rate")
    schedule: str = _option("constant", 'learning rate over the run: "constant" or "cosine" (down to nothing)')
    weight_decay: float = _option(0.0, "decoupled weight decay (AdamW)")
    label_smoothing: float = _option(0.0, "share of probability spread over all words while training")
    gradient_clip: float = _option(5.0, "largest norm of the gradient; 0 leaves it alone")
    patience: int = _option(5, "stop after so many epochs without a better validation loss; 0 never stops early")
    seed: int = _option(0, "seed of weights, batches and dropout")
    bottleneck: int = _option(120, "units between features and LSTM")
    units: int = _option(300, "LSTM units")
    embedding: int = _option(100, "numbers in a word's embedding")
    logit_hidden: int = _option(120, "units between LSTM and vocabulary")
    dropout: float = _option(0.0, "share of features, embeddings and LSTM outputs dropped while training")
    tied: bool = _option(False, "use the embeddings as output weights too (needs logit_hidden = embedding)")

    def __post_init__(self) -> None:
        for name in ("epochs", "batches", "batch_size", "validation_batches", "max_words", "min_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but it is {getattr(self, name)}")
        for name in ("weight_decay", "gradient_clip", "patience", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, but it is {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, but it is {self.learning_rate}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, but it is {self.label_smoothing}")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f'schedule must be "constant" or "cosine", but it is "{self.schedule}"')

        self.sizes(feature_size=1, vocabulary_size=1, pad_id=0)

    def sizes(self, *, feature_size: int, vocabulary_size: int, pad_id: int) -> DecoderConfig:
        """Returns the decoder's sizes for an encoder's features and a vocabulary."""
        return DecoderConfig(
            feature_size=feature_size,
            vocabulary_size=vocabulary_size,
            pad_id=pad_id,
            bottleneck=self.bottleneck,
            units=self.units,
            embedding=self.embedding,
            logit_hidden=self.logit_hidden,
            dropout=self.dropout,
            tied=self.tied,
        )

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """Names the options in which resuming an earlier run (its options as a dict) would make another run.

        More epochs and another patience only move the end, unless the cosine schedule stretches over the epochs.
        """
        free = {"patience"} if self.schedule == "cosine" else {"patience", "epochs"}
        return [
            f"{option.name} was {earlier.get(option.name)!r} and is {getattr(self, option.name)!r}"
            for option in fields(self)
            if option.name not in free and earlier.get(option.name) != getattr(self, option.name)
        ]
