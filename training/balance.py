"""The balance command: python -m training.balance --bundle FOLDER --data FOLDER --output balance.json.

Captions photographs of train lists, and counts how often the model and how often people use each word. Writes what
export.to_onnx --shifts has to add to the words' logits, so that the model says them about as often as people do.
Changes no bundle.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine import Beam, Captioner, EngineError, ImageError
from engine.bundle.vocabulary import Vocabulary
from engine.commands.parser import Parser, existing_folder, number, whole
from engine.decoding.decode import decode
from engine.decoding.step_model import StepModel
from training.data.datasets import DataError, Dataset, open_dataset
from training.files import check_outputs, write_json
from training.outcome import outcome

IMAGES = 3000  # of each data set
ROUNDS, MOST, DAMPING = 2, 2.0, 0.9
"""Times that the shifts are corrected, their largest size in nats, and the share of a correction that is made."""
LEARNED = 0.9
"""What is said of photographs that the model learned from counts for less: of others it says such a word more often."""
FEW = 0.002  # added to shares of captions, so that rare words get no large shifts
SHOWN = 10
Shares = np.ndarray
"""Share of the captions that contain each word, float64 (vocabulary,), or of several data sets (sets, vocabulary)."""


class Shifted(StepModel):
    """A model that adds a shift, (vocabulary,), to the log-probabilities of its words."""

    def __init__(self, model: StepModel, shift: np.ndarray) -> None:
        self.images = model.images
        self._model = model
        self._shift = shift.astype(np.float32)

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See StepModel."""
        return self._model.step(token_ids, parent_rows, bias + self._shift, k)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 130 after Ctrl-C."""
    parser = command_line()
    given = parser.parse_args(arguments)
    check_outputs(parser, given, "--output")
    return outcome(lambda: _run(given), EngineError, DataError)


def _run(given: argparse.Namespace) -> None:
    captioner = Captioner(given.bundle, provider="cpu", precision="fp32")
    vocabulary = captioner.bundle.vocabulary
    if unknown := [word for word in given.fully if word not in vocabulary.ids]:  # as in a recipe on other data
        print(f"note: --fully names {', '.join(unknown)}, which the bundle never writes", file=sys.stderr)
    sets = [_read(captioner, open_dataset(folder, "train"), given.images, given.seed) for folder in given.data]
    of_people = np.stack([shares for _, shares in sets])

    def say(shift: np.ndarray) -> Shares:
        return np.stack([said(captioner, features, shift) for features, _ in sets])

    people, before = of_people.mean(axis=0), say(np.zeros(len(vocabulary))).mean(axis=0)
    words = content_words(before, vocabulary, captioner.bundle.manifest.defaults.bad_endings, given.words)
    fully = [vocabulary.ids[word] for word in given.fully if word in vocabulary.ids]
    shift = balance(say, of_people, words, fully, given.strength)
    after = say(shift).mean(axis=0)
    print(f"{'word':12} {'people':>8} {'before':>8} {'after':>8} {'shift':>6}")
    for i in sorted(np.nonzero(shift)[0], key=lambda i: -abs(before[i] - people[i]))[:SHOWN]:
        print(f"{vocabulary.words[i]:12} {people[i]:8.1%} {before[i]:8.1%} {after[i]:8.1%} {shift[i]:+6.2f}")
    record = {
        "bundle": captioner.bundle.manifest.name,
        "data": [folder.resolve().name for folder in given.data],
        "photographs": sum(len(features) for features, _ in sets),
        "options": {name: getattr(given, name) for name in ("images", "words", "strength", "fully", "seed")},
        "shifts": {vocabulary.words[i]: round(float(shift[i]), 3) for i in np.nonzero(shift)[0]},
    }
    write_json(given.output, record)
    print(f"written to {given.output}")


def _read(captioner: Captioner, dataset: Dataset, images: int, seed: int) -> tuple[np.ndarray, Shares]:
    """Returns features of randomly chosen photographs, and people's shares of words in their captions."""
    order = np.random.default_rng(seed).permutation(len(dataset.examples))[:images]
    chosen = [dataset.examples[i] for i in order]
    features, kept = [], []
    for example in tqdm(chosen, desc="photographs", unit="image", disable=None):
        try:
            features.append(captioner.encode([dataset.read(example.name)]))
        except (ImageError, OSError) as error:
            print(f"note: {example.name} is left out: {error}", file=sys.stderr)
            continue
        kept.append(example.captions)
    if not kept:
        raise DataError("no photograph could be read")
    return np.concatenate(features), people_say(kept, captioner.bundle.vocabulary)


def people_say(captions: Sequence[Sequence[str]], vocabulary: Vocabulary) -> Shares:
    """Returns in which share of people's captions each word is; photographs count the same, whatever they have."""
    shares = np.zeros(len(vocabulary))
    for texts in captions:
        for text in texts:
            known = {vocabulary.ids[word] for word in vocabulary.split(text) if word in vocabulary.ids}
            shares[list(known)] += 1 / len(texts)
    return shares / len(captions)


def said(captioner: Captioner, features: np.ndarray, shift: np.ndarray) -> Shares:
    """Returns in which share of the model's captions each word is, by the bundle's default decoding with a shift."""
    model, beam = captioner.model, Beam()
    vocabulary, defaults = model.bundle.vocabulary, model.bundle.manifest.defaults
    shares = np.zeros(len(vocabulary))
    for i in range(0, len(features), captioner.batch_size):
        started = Shifted(model.start(features[i : i + captioner.batch_size]), shift)
        for caption in decode(started, beam, model.constraints(beam), vocabulary, defaults):
            shares[list({vocabulary.ids[word] for word in caption.tokens})] += 1
    return shares / len(features)


def content_words(said: Shares, vocabulary: Vocabulary, endings: Sequence[str], most: int) -> np.ndarray:
    """Returns the ids of the words that are said most, without special words and words that end no sentence."""
    left_out = {*vocabulary.never, vocabulary.end_id, *(vocabulary.ids.get(word, -1) for word in endings)}
    order = [i for i in np.argsort(-said, kind="stable").tolist() if said[i] > 0 and i not in left_out]
    return np.array(order[:most], np.int64)


def balance(
    say: Callable[[np.ndarray], Shares], people: Shares, words: np.ndarray, fully: Sequence[int], strength: float
) -> np.ndarray:
    """Returns what to add to the words' logits, float64 (vocabulary,).

    say(shift) returns the model's shares with a shift. It and people are of data sets: (sets, vocabulary). The shifts
    at which `words` are said as often as people say them, in the mean over the sets, are multiplied by `strength`, as
    going all the way costs more than it gains. Then `fully` are shifted until no set has them more often than people.
    """
    shift = np.zeros(people.shape[1])

    def correct(ids: np.ndarray, people: Shares, said: Shares, damping: float = 1.0) -> None:
        missing = np.log((people + FEW) / (said + FEW)).min(axis=0)
        shift[ids] = np.clip(shift[ids] + damping * missing, -MOST, MOST)

    for _ in range(ROUNDS if len(words) else 0):
        correct(words, people[:, words].mean(axis=0)[None], say(shift)[:, words].mean(axis=0)[None], DAMPING)
    shift *= strength
    whole = np.array(fully, np.int64)
    for _ in range(ROUNDS + 1 if len(whole) else 0):
        correct(whole, LEARNED * people[:, whole], say(shift)[:, whole])
    return shift


def command_line() -> Parser:
    """Returns the parser of the command."""
    parser = Parser(
        prog="python -m training.balance",
        description="Finds words that a model says more or less often than people, and how to correct that at export.",
    )
    option = parser.add_argument
    option("--bundle", type=Path, required=True, help="bundle exported without --shifts")
    folder = existing_folder("a folder of photographs with captions")
    option("--data", type=folder, action="append", required=True, metavar="FOLDER", help="train list; can be repeated")
    option("--output", type=Path, required=True, help="JSON file for export.to_onnx --shifts")
    option("--images", type=whole(1), default=IMAGES, help="photographs of each data set (default: %(default)s)")
    option("--words", type=whole(0), default=100, help="words that are said most (default: %(default)s)")
    option("--strength", type=number(0, 1), default=0.5, help="how far to correct them, 0 to 1 (default: %(default)s)")
    option(
        "--fully",
        type=lambda text: tuple(filter(None, text.split(","))),
        default=(),
        metavar="WORD[,WORD]",
        help="words to correct until no data set's photographs have them more often than people",
    )
    option("--seed", type=whole(0), default=0, help="which photographs are drawn (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
