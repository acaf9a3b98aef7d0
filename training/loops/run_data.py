"""What a run learns from: both splits with what stands for their images. Knows no words, no decoder's sizes, no loop.

That is features of a frozen encoder, or, where the encoder learns too, what its frozen part gives, or photographs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from training.data.batches import Features
from training.data.datasets import SPLITS
from training.data.examples import Dataset, Example
from training.data.features import FeatureStore, compute_features
from training.data.mixture import Part, check_parts, join, mix, open_parts, weighted
from training.data.photographs import Photographs
from training.data.sentences import read_sentences
from training.data.views import View, training_views
from training.loops.distributed import Processes
from training.models import checkpoint
from training.models.decoder import CaptionDecoder, DecoderConfig
from training.models.encoders import Encoder, load_encoder
from training.models.finetune import FineTuned, Tail, split
from training.options import TrainingOptions


@dataclass(frozen=True, slots=True)
class Source:
    """Where a run's images, further sentences and features lie. strict: any fault of the data is an error."""

    data: tuple[Part, ...]
    features: Path
    strict: bool = False
    sentences: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run learns from; `tail` is the part of the encoder that learns too, None of a frozen one."""

    train: Dataset
    validation: Dataset
    train_views: tuple[Features, ...]
    validation_features: Features
    sentences: tuple[Example, ...]  # captions of photographs that are not here
    encoder: dict[str, Any]  # as config.json describes it
    tail: Tail | None
    network: Mapping[str, Tensor]  # state dict of the whole encoder's network

    def decoder(self, sizes: DecoderConfig) -> CaptionDecoder:
        """Returns a new decoder, behind the tail where there is one."""
        return CaptionDecoder(sizes) if self.tail is None else FineTuned(sizes, self.tail, self.network)


def prepare(source: Source, options: TrainingOptions, together: Processes) -> RunData:
    """Opens the data, makes the encoder and computes of its features what is not there yet, once for all processes.

    Raises DataError, EncoderError, OSError, and BlockingIOError while another run computes the same features.
    """
    parts = (*source.data, *source.sentences)
    check_parts(parts)
    total = sum(part.weight or 0.0 for part in parts)
    opened = {name: open_parts(source.data, name, strict=source.strict) for name in SPLITS}
    mixed = {name: mix(source.data, datasets, total) for name, datasets in opened.items()}
    read = [(part, *read_sentences(part.path, strict=source.strict)) for part in source.sentences]
    encoder = load_encoder(options.encoder, options.encoder_weights)
    wanted = training_views(flip=options.flip, jitter=options.jitter)
    frozen, tail = split(encoder, options.finetune_encoder) if options.finetune_encoder else (encoder, None)
    encoder.to(together.device)
    if not together.first:
        together.wait()  # the first process computes, the others find it done

    def features(dataset: Dataset, title: str, view: View) -> Features:
        return stored(dataset, title, frozen or encoder, source.features, view, progress=together.first)

    def photographs(dataset: Dataset, title: str, views: Sequence[View]) -> Sequence[Features]:
        # Features are computed for nothing but to know which images can be decoded.
        return Photographs.views(dataset, features(dataset, title, View()), encoder.image, views)

    if frozen is not None:
        frozen.to(together.device)
    seen: dict[str, tuple[Features, ...]] = {}
    for title, views in (("train", wanted), ("val", (View(),))):
        of_parts = {
            name: photographs(dataset, title, views)
            if frozen is None
            else [features(dataset, title, view) for view in views]
            for name, dataset in opened[title].items()
        }
        seen[title] = join(of_parts, mixed[title])
    if together.first:
        together.wait()
        reports = [dataset.report for datasets in opened.values() for dataset in datasets.values()]
        for report in (*reports, *(each[2] for each in read)):
            print(report)
            report.check()
    described = {
        "name": options.encoder,
        "weights": options.encoder_weights if tail is None else checkpoint.ENCODER,
        "feature_size": encoder.feature_size,
        "fingerprint": encoder.fingerprint,
    }
    network = {} if tail is None else {name: tensor.cpu() for name, tensor in encoder.network.state_dict().items()}
    return RunData(
        train=mixed["train"],
        validation=mixed["val"],
        train_views=seen["train"],
        validation_features=seen["val"][0],
        sentences=tuple(each for part, examples, _ in read for each in weighted(examples, part, total)),
        encoder=described,
        tail=tail,
        network=network,
    )


def stored(
    dataset: Dataset, title: str, encoder: Encoder, folder: Path, view: View, *, progress: bool = True
) -> FeatureStore:
    """Returns a view's features out of the folder that keeps those of any encoder and any list of images.

    title: of the list, "train" or "val". Raises as compute_features does.
    """
    listed = "\n".join(example.name for example in dataset.examples)  # other data has a folder of its own
    name = title if view == View() else f"{title}-{view.title}"
    place = Path(
        folder,
        f"{encoder.name}-{encoder.fingerprint[:8]}",
        f"{name}-{hashlib.sha256(listed.encode()).hexdigest()[:8]}",
    )
    return compute_features(dataset, encoder, place, progress=progress, view=view)
