"""Made-up captions and references for tests of the evaluation."""

import numpy as np

NOUNS = ["dog", "man", "girl", "ball", "beach", "bike", "snow", "water"]
VERBS = ["runs", "jumps", "plays", "sits"]


def sentence(generator: np.random.Generator) -> str:
    """Draws a sentence such as "the dog plays with a red ball"."""
    first, second = generator.choice(NOUNS, 2)
    words = [generator.choice(["a", "the"]), first, generator.choice(VERBS)]
    if generator.random() < 0.8:
        words += [generator.choice(["with", "in", "near"]), generator.choice(["a", "the"])]
        words += [*generator.choice(["red", "big"], 1)] * int(generator.integers(0, 2)) + [second]
    return " ".join(str(word) for word in words)


def make_captions(images: int, seed: int = 0) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Returns references (one to five) and a caption of each image."""
    generator = np.random.default_rng(seed)
    names = [f"{index:03}.jpg" for index in range(images)]
    references = {name: [sentence(generator) for _ in range(1 + index % 5)] for index, name in enumerate(names)}
    return references, {name: sentence(generator) for name in names}
