"""Tokenises sentences for scoring: pycocoevalcap's PTB tokeniser, or plain words if Java is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.bundle.vocabulary import split
from training.metrics.java import INSTALL, MetricsError, find_java, package, run

PTB, SIMPLE = "PTB tokeniser of pycocoevalcap", r"lower-case \w+ words"
# What pycocoevalcap removes after its tokeniser.
PUNCTUATION = frozenset(["''", "'", "``", "`", *["-LRB-", "-RRB-", "-LCB-", "-RCB-"], *".?!,:-;", "--", "..."])
SECONDS = 600

Tokens = dict[str, list[str]]  # image -> sentences, their tokens joined by spaces


@dataclass(frozen=True, slots=True)
class Tokeniser:
    """The PTB tokeniser if Java runs. Else this project's own rule: java is None, and `note` explains it."""

    java: str | None
    note: str = ""

    @property
    def name(self) -> str:
        """The tokeniser's name, reported with scores."""
        return SIMPLE if self.java is None else PTB

    def __call__(self, sentences: Mapping[str, Sequence[str]]) -> Tokens:
        """Splits sentences. Raises MetricsError when Java's program fails."""
        return split_simply(sentences) if self.java is None else split_ptb(self.java, sentences)


def find_tokeniser() -> Tokeniser:
    """Returns the best tokeniser that runs here."""
    try:
        return Tokeniser(find_java())
    except MetricsError as error:
        return Tokeniser(
            None, f"without Java, words are split by a simpler rule, which changes scores slightly: {error}; {INSTALL}"
        )


def split_simply(sentences: Mapping[str, Sequence[str]]) -> Tokens:
    """Splits sentences by this project's own rule for words."""
    return {name: [" ".join(split(text)) for text in texts] for name, texts in sentences.items()}


def split_ptb(java: str, sentences: Mapping[str, Sequence[str]]) -> Tokens:
    """Splits sentences by the PTB tokeniser and drops punctuation, as pycocoevalcap does. Raises MetricsError."""
    # Each sentence is one line: any white space, including Unicode line ends, becomes one space.
    lines = [" ".join(text.split()) for texts in sentences.values() for text in texts]
    program = "edu.stanford.nlp.process.PTBTokenizer"
    options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    jar = package() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    output = run("the PTB tokeniser", [java, "-cp", str(jar), program, *options], lines, SECONDS)
    output += [""] * (len(lines) - len(output))  # empty sentences at the end
    if len(output) != len(lines):
        raise MetricsError(f"the PTB tokeniser returned {len(output)} lines for {len(lines)} sentences")
    kept = iter(" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATION) for line in output)
    return {name: [next(kept) for _ in texts] for name, texts in sentences.items()}
