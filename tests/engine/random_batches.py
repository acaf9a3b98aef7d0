"""Captions batches of random sizes in a process of its own; prints the peak of its memory and its threads as it goes.

Changing sizes and beams would fill a cache keyed on shapes; threads that end would fill one keyed on threads.
`python -m tests.engine.random_batches BUNDLE`; Linux only.
"""

import re
import sys
import threading
from pathlib import Path

import numpy as np

from engine import Beam, Captioner, Greedy, Sample
from engine.options import Decoding

BATCHES, EVERY = 800, 80
LARGEST, WIDEST = 16, 6
IN_THREADS = 8
"""Every batch with a multiple of this number runs in a new thread."""


def random_way(random: np.random.Generator) -> Decoding:
    length, size, fewer = (int(random.integers(1, most + 1)) for most in (20, WIDEST, WIDEST))
    ways: tuple[Decoding, ...] = (
        Greedy(),
        Greedy(max_length=length, no_repeat_ngram_size=2),
        Beam(beam_size=size),
        Beam(beam_size=WIDEST, num_hypotheses=fewer, max_length=length),
        Sample(num_samples=size, temperature=2.0),
        Sample(seed=size, top_k=5, top_p=0.9),
    )
    return ways[int(random.integers(len(ways)))]


def main(bundle: str) -> None:
    captioner, random = Captioner(bundle, provider="cpu", batch_size=LARGEST), np.random.default_rng(0)
    spec = captioner.bundle.manifest.image
    images = random.integers(0, 256, (LARGEST, spec.height, spec.width, 3), np.uint8)
    features = captioner.encode(images)
    for way in (Greedy(), Beam(beam_size=WIDEST), Sample(num_samples=WIDEST)):  # the largest batch of each comes first
        captioner.caption(images, way)

    def caption(size: int, way: Decoding, decode_alone: bool) -> None:
        if decode_alone:  # where shapes change most
            captioner.caption_features(features[:size], way)
        else:
            captioner.caption(images[:size], way)

    for done in range(1, BATCHES + 1):
        arguments = int(random.integers(0, LARGEST + 1)), random_way(random), done % 8 > 0
        if done % IN_THREADS == 0:
            thread = threading.Thread(target=caption, args=arguments)
            thread.start()
            thread.join()
        else:
            caption(*arguments)
        if done % EVERY == 0:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
            print(peak, threading.active_count())


if __name__ == "__main__":
    main(sys.argv[1])
