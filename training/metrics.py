"""Scores of captions against references as the field computes them: pycocoevalcap's BLEU, ROUGE-L, CIDEr, METEOR.

Knows no images and no models. METEOR and the PTB tokeniser are Java programs in pycocoevalcap's package; they are run
here with a time limit and closed pipes, where pycocoevalcap's own wrappers write into the package and can hang.
"""

import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.vocabulary import split

PTB, SIMPLE = "PTB tokeniser of pycocoevalcap", r"lower-case \w+ words"
# What pycocoevalcap removes after its tokeniser.
PUNCTUATION = frozenset(["''", "'", "``", "`", *["-LRB-", "-RRB-", "-LCB-", "-RCB-"], *".?!,:-;", "--", "..."])
TOKENISER_SECONDS, METEOR_SECONDS = 600, 1800

Tokens = dict[str, list[str]]  # image -> sentences, their tokens joined by spaces


class MetricsError(ValueError):
    """Captions that cannot be scored; the message says why."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Corpus scores, each from 0 to 1 (CIDEr to 10); `meteor` is None where it was left out, and `notes` say why."""

    bleu: tuple[float, float, float, float]  # BLEU-1 to BLEU-4
    rouge_l: float
    cider: float
    meteor: float | None
    tokeniser: str
    notes: tuple[str, ...] = ()

    def named(self) -> dict[str, float]:
        """Returns each score that there is by its usual name."""
        scores = {f"BLEU-{n}": value for n, value in enumerate(self.bleu, start=1)}
        scores |= {"ROUGE-L": self.rouge_l, "CIDEr": self.cider}
        return scores if self.meteor is None else scores | {"METEOR": self.meteor}

    def __str__(self) -> str:
        lines = [f"{name:8} {value:.4f}" for name, value in self.named().items()]
        return "\n".join([*lines, f"tokeniser: {self.tokeniser}", *(f"note: {note}" for note in self.notes)])


def score_captions(references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]) -> Scores:
    """Scores one candidate for each image against its references. Raises MetricsError.

    Without Java the sentences are split by this project's own rule and METEOR is left out; the scores say so.
    """
    if references.keys() != candidates.keys():
        odd = sorted(references.keys() ^ candidates.keys())
        raise MetricsError(f"every image needs a caption and references, but {len(odd)} lack one: {', '.join(odd[:5])}")
    if not candidates or not all(references.values()):
        raise MetricsError("there is nothing to score: no captions, or images without references")
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise MetricsError("scoring needs pycocoevalcap: install the extra 'train'") from error
    names = list(candidates)
    written = {name: list(references[name]) for name in names}
    said = {name: [candidates[name]] for name in names}
    notes: list[str] = []
    tokeniser, meteor = SIMPLE, None
    java = shutil.which("java")
    if java is None:
        notes.append("without Java METEOR is left out, and the other scores differ slightly from those on PTB tokens")
        truths, guesses = _split_simply(written), _split_simply(said)
    else:
        tokeniser = PTB
        truths, guesses = _tokenise(java, written), _tokenise(java, said)
        try:
            meteor = _meteor(java, truths, guesses)
        except MetricsError as error:
            notes.append(f"METEOR is left out: {error}")
    bleu = _run(Bleu(4), truths, guesses, verbose=0)
    return Scores(
        bleu=(bleu[0], bleu[1], bleu[2], bleu[3]),
        rouge_l=float(_run(Rouge(), truths, guesses)),
        cider=float(_run(Cider(), truths, guesses)),
        meteor=meteor,
        tokeniser=tokeniser,
        notes=tuple(notes),
    )


def _run(scorer: Any, truths: Tokens, guesses: Tokens, **options: object) -> Any:
    return scorer.compute_score(truths, guesses, **options)[0]


def _split_simply(sentences: Tokens) -> Tokens:
    return {name: [" ".join(split(text)) for text in texts] for name, texts in sentences.items()}


def _tokenise(java: str, sentences: Tokens) -> Tokens:
    """Splits sentences into tokens by the PTB tokeniser, as pycocoevalcap does."""
    # A sentence is a line: any white space, other alphabets' line ends too, becomes one space.
    lines = [" ".join(text.split()) for texts in sentences.values() for text in texts]
    program = "edu.stanford.nlp.process.PTBTokenizer"
    options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    jar = _package() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    output = _java([java, "-cp", str(jar), program, *options], lines, TOKENISER_SECONDS)
    output += [""] * (len(lines) - len(output))  # empty sentences at the end
    if len(output) != len(lines):
        raise MetricsError(f"the PTB tokeniser returned {len(output)} lines for {len(lines)} sentences")
    kept = iter(" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATION) for line in output)
    return {name: [next(kept) for _ in texts] for name, texts in sentences.items()}


def _meteor(java: str, truths: Tokens, guesses: Tokens) -> float:
    """Returns METEOR of the corpus: the program first measures each sentence, then sums the measures up."""
    folder = _package() / "meteor"
    jar = folder / "meteor-1.5.jar"
    program = [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    sentences = [
        " ||| ".join(["SCORE", *(text.replace("|||", "") for text in (*texts, guesses[name][0]))])
        for name, texts in truths.items()
    ]
    measures = _java(program, sentences, METEOR_SECONDS)
    if len(measures) != len(sentences):
        raise MetricsError(f"METEOR measured {len(measures)} of {len(sentences)} sentences")
    scores = _java(program, [" ||| ".join(["EVAL", *measures])], METEOR_SECONDS)
    try:
        score = float(scores[-1])  # after one for each sentence
    except (IndexError, ValueError) as error:
        raise MetricsError("METEOR printed no score") from error
    if not math.isfinite(score):
        raise MetricsError(f"METEOR came to {score}")
    return score


def _java(command: list[str], lines: list[str], seconds: float) -> list[str]:
    """Runs a Java program on lines of text and returns its lines. Raises MetricsError."""
    name = Path(command[command.index("-cp" if "-cp" in command else "-jar") + 1]).name
    try:
        finished = subprocess.run(
            command,
            input="".join(f"{line}\n" for line in lines).encode(),
            capture_output=True,
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise MetricsError(f"{name} did not finish within {seconds:g} seconds") from error
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
        raise MetricsError(f"{name} failed: {said[0] if said else error}") from error
    return finished.stdout.decode().removesuffix("\n").split("\n")  # other alphabets' line ends end no line here


def _package() -> Path:
    import pycocoevalcap

    return Path(next(iter(pycocoevalcap.__path__)))
