"""METEOR's matches of each caption with its best reference, measured by the program in pycocoevalcap's package."""

import numpy as np

from training.metrics.counts import METEOR_COLUMNS, Rows
from training.metrics.java import MetricsError, package, run
from training.metrics.tokens import Tokens

SECONDS = 1800
CHUNKS = 20  # their column


def meteor_rows(java: str, truths: Tokens, guesses: Tokens) -> Rows:
    """Returns METEOR's counts for each image of `truths`, in order: float64 (images, 23). Raises MetricsError."""
    jar = package() / "meteor" / "meteor-1.5.jar"
    program = [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    sentences = [
        " ||| ".join(["SCORE", *(text.replace("|||", "") for text in (*texts, guesses[name][0]))])
        for name, texts in truths.items()
    ]
    printed = [line for line in run("METEOR", program, sentences, SECONDS) if line]
    if len(printed) != len(sentences):
        raise MetricsError(f"METEOR returned counts for {len(printed)} of {len(sentences)} sentences")
    try:
        rows = np.array([[float(number) for number in line.split()] for line in printed])
    except ValueError as error:
        raise MetricsError(
            f"METEOR printed something other than {METEOR_COLUMNS} counts: {printed[0][:60]!r}"
        ) from error
    if rows.shape != (len(sentences), METEOR_COLUMNS) or not np.isfinite(rows).all():
        raise MetricsError(f"METEOR printed something other than {METEOR_COLUMNS} counts: {printed[0][:60]!r}")
    # A caption equal to its reference is one chunk without penalty; the program too leaves it out of sums.
    matched = rows[:, 4:20].reshape(-1, 4, 2, 2).sum(axis=(1, 2))  # (images, said and meant)
    rows[(matched == rows[:, :2]).all(axis=1) & (rows[:, CHUNKS] == 1), CHUNKS] = 0
    return rows
