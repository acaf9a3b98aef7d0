"""The data of a run: both splits with their images' inputs. Knows no words, decoder sizes or loops.

The inputs are features of a frozen encoder or, if it is trained too, outputs of its frozen part, or photographs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from training.data.batches import Features
from training.data.datasets import SPLITS, DataError, Dataset, Example, open_dataset
from training.data.features import FeatureStore, compute_features
from training.data.mixture import Mixture, Part, join, retitled, titles_of
from training.data.photographs import Photographs
from training.data.sentences import read_sentences
from training.data.views import View, training_views
from training.loops.distributed import Processes
from training.models import checkpoint
from training.models.decoder import CaptionDecoder, DecoderConfig
from training.models.encoders import Encoder, load_encoder
from training.models.finetune import Tail, fine_tuned, split
from training.options import TrainingOptions


@dataclass(frozen=True, slots=True)
class Source:
    """Where a run's images, extra sentences and features are. strict: any problem in the data is an error."""

    data: tuple[Part, ...]
    features: Path
    strict: bool = False
    sentences: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class RunData:
    """The data of a run; `tail` is the trained part of the encoder, None if it is frozen."""

    train: Mixture
    validation: Mixture
    train_views: tuple[Features, ...]
    validation_features: Features
    sentences: tuple[Example, ...]  # captions without photographs
    weights: Mapping[str, float]  # how often each data set is drawn, by title; empty: by number of photographs
    encoder: dict[str, Any]  # as in config.json
    tail: Tail | None
    network: Mapping[str, Tensor]  # state dict of the whole encoder's network
    shape: tuple[int, ...]  # of an image's features

    def decoder(self, sizes: DecoderConfig) -> CaptionDecoder:
        """Returns a new decoder, after the tail if there is one."""
        return checkpoint.make_decoder(sizes) if self.tail is None else fine_tuned(sizes, self.tail, self.network)


def prepare(source: Source, options: TrainingOptions, together: Processes, encoder: Encoder | None = None) -> RunData:
    """Opens the data, makes the encoder, and computes missing features, once for all processes.

    encoder: one that is there already, instead of that of the options. Raises DataError, EncoderError, OSError, and
    BlockingIOError while another run computes the same features.
    """
    parts = *source.data, *source.sentences
    titles = titles_of(parts)
    if source.sentences and options.finetune_encoder:
        raise DataError("an encoder cannot be trained on sentences: leave out --sentences or --finetune-encoder")
    opened = {
        name: {titles[part]: open_dataset(part.path, name, strict=source.strict) for part in source.data}
        for name in SPLITS
    }
    read = {titles[part]: read_sentences(part.path, strict=source.strict) for part in source.sentences}
    encoder = encoder or load_encoder(options.encoder, options.encoder_weights, grid=options.attends)
    wanted = training_views(flip=options.flip, jitter=options.jitter)
    frozen, tail = split(encoder, options.finetune_encoder) if options.finetune_encoder else (encoder, None)
    encoder.to(together.device)
    if not together.first:
        together.wait()  # the first process computes, the others use its results
    if frozen is not None:
        frozen.to(together.device)

    def views_of(name: str, title: str, views: Sequence[View]) -> Sequence[Features]:
        dataset, kept = opened[name][title], f"{name}{apart(title, opened[name])}"
        if frozen is not None:
            return [stored(dataset, kept, frozen, source.features, view, progress=together.first) for view in views]
        # features are computed only to find out which images can be decoded
        there = stored(dataset, kept, encoder, source.features, View(), progress=together.first)
        return Photographs.views(there.names, dataset, encoder.image, views)

    seen = {
        name: join({title: views_of(name, title, views) for title in opened[name]})
        for name, views in (("train", wanted), ("val", (View(),)))
    }
    if together.first:
        together.wait()
        reports = [dataset.report for datasets in opened.values() for dataset in datasets.values()]
        for report in (*reports, *(report for _, report in read.values())):
            print(report)
            report.check()
    described = {
        "name": options.encoder,
        "weights": options.encoder_weights if tail is None else checkpoint.ENCODER,
        "feature_size": encoder.feature_size,
        **({"grid": list(encoder.output_shape[:-1])} if encoder.grid else {}),
        "fingerprint": encoder.fingerprint,
    }
    network = {} if tail is None else {name: tensor.cpu() for name, tensor in encoder.network.state_dict().items()}
    return RunData(
        train=Mixture(opened["train"]),
        validation=Mixture(opened["val"]),
        train_views=seen["train"],
        validation_features=seen["val"][0],
        sentences=tuple(each for title, (examples, _) in read.items() for each in retitled(examples, title)),
        weights={title: part.weight for part, title in titles.items() if part.weight is not None},
        encoder=described,
        tail=tail,
        network=network,
        shape=encoder.output_shape,
    )


def apart(title: str, datasets: Mapping[str, Dataset]) -> str:
    """Returns a key that separates the features of data sets whose images have the same names."""
    names = {one: [example.name for example in dataset.examples] for one, dataset in datasets.items()}
    return f"-{title}" if [*names.values()].count(names[title]) > 1 else ""


def stored(
    dataset: Dataset, title: str, encoder: Encoder, folder: Path, view: View, *, progress: bool = True
) -> FeatureStore:
    """Returns a view's features from a folder that stores those of any encoder and any list of images.

    title: the list's, such as "train" or "val". Raises what compute_features raises.
    """
    listed = "\n".join(example.name for example in dataset.examples)  # other data gets another folder
    name = title if view == View() else f"{title}-{view.title}"
    place = Path(
        folder,
        f"{encoder.name}-{encoder.fingerprint[:8]}",
        f"{name}-{hashlib.sha256(listed.encode()).hexdigest()[:8]}",
    )
    return compute_features(dataset, encoder, place, progress=progress, view=view)
