"""The tuning command: python -m training.tune_decoding --bundle FOLDER --data FOLDER --output tuned.json.

Encodes a data set's images once, captions them with every setting of a grid (beam size, length penalty, repeats,
endings) and scores the captions. Prints which defaults to export; changes no bundle.
"""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine import Beam, Captioner, EngineError, ImageError
from engine.bundle.vocabulary import split
from engine.commands.parser import Parser, number, whole
from training.data.datasets import SPLITS, DataError, Dataset, open_dataset
from training.files import check_outputs, write_json
from training.metrics.caption_statistics import repeats
from training.metrics.java import MetricsError, package
from training.metrics.tokens import Tokeniser, Tokens, find_tokeniser
from training.outcome import outcome

SEEN, ENDING = 500, 0.002
MARGIN = 0.002


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of the grid, and the scores of its captions.

    cider and bleu_4 are from training.metrics.scores; words is the mean length. open and repeating are the shares of
    captions that end in a bad ending, and that contain three words in a row twice.
    """

    beam_size: int
    length_penalty: float
    no_repeat_ngram_size: int
    bad_endings: tuple[str, ...] = ()
    cider: float = 0.0
    bleu_4: float = 0.0
    words: float = 0.0
    open: float = 0.0
    repeating: float = 0.0

    def decoding(self) -> Beam:
        """Returns its decoding options for the engine."""
        return Beam(
            beam_size=self.beam_size,
            length_penalty=self.length_penalty,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            bad_endings=self.bad_endings,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 130 after Ctrl-C."""
    parser = _parser()
    given = parser.parse_args(arguments)
    check_outputs(parser, given, "--output")
    given.grid = settings(given.beams, given.penalties, given.repeats)
    return outcome(lambda: _run(given), EngineError, DataError, MetricsError)


def _run(given: argparse.Namespace) -> None:
    package()  # fails early, with install instructions
    dataset = open_dataset(given.data, given.split)
    endings = given.bad_endings
    if endings is None:
        train = open_dataset(given.data, "train").examples
        endings = find_bad_endings(text for example in train for text in example.captions)
    captioner = Captioner(given.bundle, provider=given.provider, precision=given.precision)
    grid = [replace(one, bad_endings=words) for one in given.grid for words in dict.fromkeys(((), endings))]
    tokeniser = find_tokeniser()
    if tokeniser.note:
        print(f"note: {tokeniser.note}", file=sys.stderr)
    tuned = tune(captioner, dataset, grid, endings, tokeniser)
    chosen = recommend(tuned)
    print(table(tuned, chosen))
    print(
        f"{len(dataset.examples):,} images of {given.data} ({SPLITS[given.split]}), "
        f"{captioner.provider} {captioner.precision}"
    )
    words = ",".join(chosen.bad_endings)
    print(
        f"to export: --beam-size {chosen.beam_size} --length-penalty {chosen.length_penalty:g} "
        f"--no-repeat-ngram-size {chosen.no_repeat_ngram_size} --bad-endings {words!r}"
    )
    record = {
        "bundle": captioner.bundle.manifest.name,
        "data": given.data.resolve().name,
        "split": given.split,
        "images": len(dataset.examples),
        "precision": captioner.precision,
        "tokeniser": tokeniser.name,
        "bad_endings": list(endings),
        "recommended": asdict(chosen),
        "settings": [{**asdict(one), "bad_endings": bool(one.bad_endings)} for one in tuned],
    }
    write_json(given.output, record)
    print(f"written to {given.output}")


def find_bad_endings(captions: Iterator[str]) -> tuple[str, ...]:
    """Returns words, commonest first, that people use at least SEEN times, but less than a share ENDING at the end."""
    written, last = Counter[str](), Counter[str]()
    for text in captions:
        words = split(text)
        written.update(words)
        last.update(words[-1:])
    return tuple(word for word, count in written.most_common() if count >= SEEN and last[word] < ENDING * count)


def settings(beams: Sequence[int], penalties: Sequence[float], repeats: Sequence[int]) -> list[Setting]:
    """Returns the grid with all endings allowed, and with penalties only for more than one beam."""
    points = itertools.product(beams, penalties, repeats)
    return list(dict.fromkeys(Setting(beam, p if beam > 1 else penalties[0], n) for beam, p, n in points))


def tune(
    captioner: Captioner, dataset: Dataset, grid: Sequence[Setting], endings: Sequence[str], tokeniser: Tokeniser
) -> list[Setting]:
    """Returns the settings with their scores.

    endings: the bad endings, counted for all settings. Raises EngineError for an image that cannot be read.
    """
    names = [example.name for example in dataset.examples]

    def photographs() -> Iterator[bytes]:
        for name in tqdm(names, "encoding", unit="image", disable=None):
            yield dataset.read(name)

    try:
        features = captioner.encode(photographs())
    except ImageError as error:
        raise EngineError(f"{names[error.entry or 0]} cannot be read: leave it out of the data set") from error
    told = [
        [caption.text for caption in captioner.caption_features(features, one.decoding())]
        for one in tqdm(grid, "decoding", unit="setting", disable=None)
    ]
    references = {example.name: list(example.captions) for example in dataset.examples}
    unique = {text: [text] for texts in told for text in texts}
    said, truths = tokeniser(unique), tokeniser(references)
    scored = []
    for one, texts in zip(tqdm(grid, "scoring", unit="setting", disable=None), told, strict=True):
        cider, bleu_4 = _scores(truths, {name: said[text] for name, text in zip(names, texts, strict=True)})
        words = [text.split() for text in texts]
        scored.append(
            replace(
                one,
                cider=round(cider, 4),
                bleu_4=round(bleu_4, 4),
                words=round(float(np.mean([*map(len, words)])), 2),
                open=round(float(np.mean([bool({*sentence[-1:]} & {*endings}) for sentence in words])), 4),
                repeating=round(float(np.mean([repeats(sentence, 3) for sentence in words])), 4),
            )
        )
    return scored


def _scores(truths: Tokens, guesses: Tokens) -> tuple[float, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    bleu = Bleu(4).compute_score(truths, guesses, verbose=0)[0]
    return float(Cider().compute_score(truths, guesses)[0]), float(bleu[3])


def recommend(tuned: Sequence[Setting]) -> Setting:
    """Returns the setting with the best CIDEr among those that read well, or among all if none does.

    A setting reads well if it forbids everything that the grid can forbid. The narrowest beam within MARGIN wins.
    """
    endings, repeats = any(one.bad_endings for one in tuned), any(one.no_repeat_ngram_size for one in tuned)
    good = [one for one in tuned if bool(one.bad_endings) == endings and bool(one.no_repeat_ngram_size) == repeats]
    best = max(one.cider for one in good)
    return min((one for one in good if one.cider >= best - MARGIN), key=lambda one: (one.beam_size, -one.cider))


def table(tuned: Sequence[Setting], chosen: Setting) -> str:
    """Returns the settings as lines, the best CIDEr first, the recommended one marked."""
    lines = [
        f"{one.beam_size:4}  {one.length_penalty:7g}  {one.no_repeat_ngram_size or 'any':>7}  "
        f"{'good' if one.bad_endings else 'any':>7}  {one.cider:.4f}  {one.bleu_4:.4f}  {one.words:5.2f}  "
        f"{one.open:5.1%}  {one.repeating:9.1%}{'  <- recommended' if one is chosen else ''}"
        for one in sorted(tuned, key=lambda one: -one.cider)
    ]
    return "\n".join(["beam  penalty  repeats  endings   CIDEr  BLEU-4  words   open  repeating", *lines])


def _listed(text: str, read: Callable[[str], float]) -> tuple[float, ...]:
    values = tuple(read(part) for part in _words(text))
    if not values:
        raise argparse.ArgumentTypeError("must be numbers with commas between them, but there is none")
    return values


def _words(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m training.tune_decoding",
        description=__doc__,
        epilog="The default grid takes about ten minutes for 1,000 photographs on one core, after they are encoded.",
    )
    option = parser.add_argument
    option("--bundle", type=Path, help="bundle to tune (default: the one that ships)")
    option("--data", type=Path, required=True, help="COCO 2014 or Flickr8k folder")
    option("--split", choices=("train", "val"), default="val", help="train or validation list (val)")
    kinds: tuple[tuple[str, Callable[[str], float], str, str], ...] = (
        ("--beams", whole(1), "1,3,5", "beam sizes"),
        ("--penalties", number(0, 10), "0,0.7,1,1.5,2,3", "length penalties"),
        ("--repeats", whole(0), "0,2,3", "no_repeat_ngram_size"),
    )
    for name, read, usual, what in kinds:
        option(
            name, type=partial(_listed, read=read), default=usual, metavar="X[,X]", help=f"{what} (default: {usual})"
        )
    option(
        "--bad-endings",
        type=_words,
        metavar="X[,X]",
        help=f"words to try forbidding at the end; default: words used at least {SEEN} times in the train list, but "
        f"less than {ENDING * 1000:g} in 1,000 times at the end",
    )
    option("--provider", default="cpu", help="the engine's provider (default: cpu)")
    option("--precision", default="fp32", help="the bundle's precision (default: fp32)")
    option("--output", type=Path, default=Path("tuned.json"), help="JSON file for all figures (default: tuned.json)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
