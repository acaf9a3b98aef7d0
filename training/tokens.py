"""Sentences to tokens before they are scored: pycocoevalcap's PTB tokeniser, or plain words without Java."""

from collections.abc import Mapping, Sequence

from engine.vocabulary import split
from training.java import MetricsError, package, run

PTB, SIMPLE = "PTB tokeniser of pycocoevalcap", r"lower-case \w+ words"
# What pycocoevalcap removes after its tokeniser.
PUNCTUATION = frozenset(["''", "'", "``", "`", *["-LRB-", "-RRB-", "-LCB-", "-RCB-"], *".?!,:-;", "--", "..."])
SECONDS = 600

Tokens = dict[str, list[str]]  # image -> sentences, their tokens joined by spaces


def split_simply(sentences: Mapping[str, Sequence[str]]) -> Tokens:
    """Splits sentences by this project's own rule for words."""
    return {name: [" ".join(split(text)) for text in texts] for name, texts in sentences.items()}


def split_ptb(java: str, sentences: Mapping[str, Sequence[str]]) -> Tokens:
    """Splits sentences by the PTB tokeniser and drops punctuation, as pycocoevalcap does. Raises MetricsError."""
    # A sentence is a line: any white space, other alphabets' line ends too, becomes one space.
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
