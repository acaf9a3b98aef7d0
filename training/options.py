"""The options of training runs: names, defaults and limits. Knows nothing of how they are used."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from training.models.attention import AttentionConfig
from training.models.decoder import DecoderConfig

KINDS = DecoderConfig.kind, AttentionConfig.kind


def _option(default: Any, text: str) -> Any:
    """A field with its --help text in the metadata."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """Options of every training run. Raises ValueError naming the field with an invalid value."""

    epochs: int = _option(30, "total number of epochs; can be raised when resuming")
    learning_rate: float = _option(1e-3, "Adam's learning rate")
    schedule: str = _option("constant", 'learning rate schedule: "constant" or "cosine" (down to 0)')
    warmup: int = _option(0, "batches over which the learning rate rises from 0")
    weight_decay: float = _option(0.0, "decoupled weight decay (AdamW)")
    gradient_clip: float = _option(5.0, "largest norm of the gradient; 0 for no limit")
    ema: float = _option(
        0.0, "decay of a moving average of the weights, such as 0.999, to use instead of the last weights; 0: off"
    )
    bf16: bool = _option(
        False,
        "compute in bfloat16: faster on a GPU and on a CPU with AVX512-BF16 or AMX; a CPU without AVX-512 computes in "
        "float32 instead, which takes about 1.5 times as long",
    )
    patience: int = _option(5, "stop after this many epochs without improvement; 0 never stops early")
    seed: int = _option(0, "seed of weights, batches and dropout")

    def __post_init__(self) -> None:
        self.check_least(1, "epochs")
        self.check_least(0, "warmup", "weight_decay", "gradient_clip", "patience", "seed")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, but it is {self.learning_rate}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, but it is {self.ema}")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f'schedule must be "constant" or "cosine", but it is "{self.schedule}"')

    def check_least(self, least: int, *names: str) -> None:
        """Raises ValueError for the first of the named options that is below `least`."""
        for name in names:
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, but it is {getattr(self, name)}")

    @property
    def free(self) -> frozenset[str]:
        """The options that may change when a run is resumed: those that only affect when it ends."""
        return frozenset({"patience"} if self.schedule == "cosine" else {"patience", "epochs"})

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """Returns the options that differ from an earlier run (its options as a dict), so that it cannot be resumed.

        An option that the earlier version did not have counts as its default.
        """
        return [
            f"{option.name} was {was!r} and is {getattr(self, option.name)!r}"
            for option in fields(self)
            if option.name not in self.free
            and (was := earlier.get(option.name, option.default)) != getattr(self, option.name)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions(LoopOptions):
    """All options that affect a run's results: two runs with equal options on equal data are the same run.

    Raises ValueError naming the field with an invalid value.
    """

    encoder: str = _option("efficientnet_lite0", "image encoder by name")
    encoder_weights: str = _option("pretrained", 'its weights: "pretrained", "random" or a file')
    finetune_encoder: str = _option(
        "",
        'train the encoder too: its head and this many of its last blocks, or "all" of it; batches are of whole images',
    )
    encoder_learning_rate: float = _option(1e-4, "Adam's learning rate for the encoder")
    flip: bool = _option(False, "also train on mirrored photographs")
    jitter: int = _option(0, "also train on this many randomly cropped and coloured views of each photograph")
    batches: int = _option(1000, "batches per epoch")
    batch_size: int = _option(64, "captions in a batch, over all processes together")
    bucket: int = _option(16, "batches that are sorted by caption length together to save padding; 1: off")
    validation_batches: int = _option(100, "most batches of validation captions after each epoch")
    max_words: int = _option(20, "captions are cut at this many words")
    min_count: int = _option(5, "words that occur less often are unknown")
    sentence_min_count: int = _option(40, "words that occur this often in --sentences are known too")
    label_smoothing: float = _option(0.0, "share of probability spread over all words in training")
    decoder: str = _option("lstm", 'kind of decoder: "lstm" or "attention", which looks at parts of the image')
    attention_size: int = _option(256, "numbers that attention compares a part of the image by")
    value_size: int = _option(256, "numbers that attention takes from a part of the image")
    bottleneck: int = _option(120, "units between features and LSTM")
    units: int = _option(300, "LSTM units")
    embedding: int = _option(100, "numbers in a word's embedding")
    logit_hidden: int = _option(120, "units between LSTM and vocabulary")
    dropout: float = _option(0.0, "share of features, embeddings and LSTM outputs dropped in training")
    tied: bool = _option(False, "use the embeddings as output weights too (needs logit_hidden = embedding)")

    def __post_init__(self) -> None:
        LoopOptions.__post_init__(self)  # super() does not work in a dataclass with slots
        self.check_least(1, "batches", "batch_size", "bucket", "validation_batches", "max_words")
        self.check_least(1, "min_count", "sentence_min_count")
        self.check_least(0, "jitter")
        if not (self.finetune_encoder in ("", "all") or self.finetune_encoder.isdecimal()):
            raise ValueError(f'finetune_encoder must be a number or "all", but it is "{self.finetune_encoder}"')
        if not self.encoder_learning_rate > 0:
            raise ValueError(f"encoder_learning_rate must be above 0, but it is {self.encoder_learning_rate}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, but it is {self.label_smoothing}")
        if self.decoder not in KINDS:
            raise ValueError(f'decoder must be "lstm" or "attention", but it is "{self.decoder}"')
        self.sizes(shape=(1, 1, 1) if self.attends else (1,), vocabulary_size=1, pad_id=0)

    @property
    def attends(self) -> bool:
        """Whether the decoder needs grids of features."""
        return self.decoder == AttentionConfig.kind

    def sizes(self, *, shape: Sequence[int], vocabulary_size: int, pad_id: int) -> DecoderConfig:
        """Returns the decoder's sizes for the shape of an image's features and a vocabulary."""
        *grid, feature_size = shape
        given: dict[str, Any] = {
            "feature_size": feature_size,
            "vocabulary_size": vocabulary_size,
            "pad_id": pad_id,
            "bottleneck": self.bottleneck,
            "units": self.units,
            "embedding": self.embedding,
            "logit_hidden": self.logit_hidden,
            "dropout": self.dropout,
            "tied": self.tied,
        }
        if not self.attends:
            return DecoderConfig(**given)
        height, width = grid
        given |= {"attention_size": self.attention_size, "value_size": self.value_size}
        return AttentionConfig(height=height, width=width, **given)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScstOptions(LoopOptions):
    """All options that affect a self-critical run's results, besides the run that it starts from.

    Raises ValueError naming the field with an invalid value.
    """

    epochs: int = _option(10, "total number of epochs; can be raised when resuming")
    learning_rate: float = _option(5e-5, "Adam's learning rate")
    patience: int = _option(0, "stop after this many epochs without improvement; 0 never stops early")
    batches: int = _option(0, "batches per epoch; 0: all images once")
    batch_size: int = _option(32, "images in a batch, over all processes together")
    samples: int = _option(5, "sentences sampled for each image")
    sigma: float = _option(6.0, "tolerance of the reward for length, in words; CIDEr-D's is 6, less is stricter")
    rarity: float = _option(
        1.0, "exponent of the reward's inverse document frequencies; CIDEr-D's is 1, more favours rare words"
    )
    bleu: float = _option(0.0, "weight of BLEU-4 (0 to 1) in the reward, next to CIDEr-D (0 to 10)")
    cross_entropy: float = _option(0.0, "weight of cross-entropy on one caption per image, in addition to the reward")
    logit_adjustment: float = _option(
        0.0, "before training, lower each word's logit by this times the logarithm of its frequency"
    )
    dropout: float = _option(0.0, "share of features, embeddings and LSTM outputs dropped in training")
    max_words: int = _option(20, "sentences are cut at this many words")

    def __post_init__(self) -> None:
        LoopOptions.__post_init__(self)
        self.check_least(1, "batch_size", "max_words")
        self.check_least(0, "batches", "bleu", "cross_entropy", "logit_adjustment")
        self.check_least(2, "samples")
        for name in ("sigma", "rarity"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, but it is {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, but it is {self.dropout}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JointOptions(LoopOptions):
    """All options that affect the training of a joint space, besides the bundle whose encoder it is for.

    Raises ValueError naming the field with an invalid value.
    """

    epochs: int = _option(12, "total number of epochs; with schedule constant it can be raised when resuming")
    schedule: str = _option("cosine", 'learning rate schedule: "constant" or "cosine" (down to 0)')
    warmup: int = _option(100, "batches over which the learning rate rises from 0")
    weight_decay: float = _option(1e-4, "decoupled weight decay (AdamW)")
    gradient_clip: float = _option(2.0, "largest norm of the gradient; 0 for no limit")
    ema: float = _option(
        0.995, "decay of a moving average of the weights, such as 0.999, to use instead of the last weights; 0: off"
    )
    patience: int = _option(0, "stop after this many epochs without improvement; 0 never stops early")
    flip: bool = _option(True, "also train on mirrored photographs")
    jitter: int = _option(4, "also train on this many randomly cropped and coloured views of each photograph")
    batch_size: int = _option(384, "captions in a batch, each of which has to find its photograph among all")
    bucket: int = _option(8, "batches that are sorted by caption length together to save padding; 1: off")
    max_words: int = _option(30, "captions are cut at this many words")
    paraphrases: int = _option(512, "pairs of --sentences in a batch, each of which has to find its other half")
    paraphrase_weight: float = _option(1.0, "weight of their loss")
    size: int = _option(512, "numbers in a vector")
    embedding: int = _option(512, "numbers in a word's embedding")
    hidden: int = _option(512, "units of the hidden layer between features and vectors")
    word_dropout: float = _option(0.2, "share of the numbers of words' embeddings dropped in training")
    feature_dropout: float = _option(0.5, "share of features dropped in training")

    def __post_init__(self) -> None:
        LoopOptions.__post_init__(self)
        self.check_least(1, "bucket", "max_words", "size", "embedding", "hidden")
        self.check_least(2, "batch_size", "paraphrases")  # one alone would have nothing to be told from
        self.check_least(0, "jitter", "paraphrase_weight")
        for name in ("word_dropout", "feature_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, but it is {getattr(self, name)}")
