"""The requests of the HTTP load tests: photographs, decoding options, frequencies. Sends nothing."""

import random
from dataclasses import dataclass

from benchmarks.photographs import photographs

PHOTOGRAPHS = 40
OPTIONS = {
    "greedy": "decoding=greedy",
    "beam": "decoding=beam",
    "alternatives": "decoding=beam&beam_size=5&num_hypotheses=3",
    "sample": "decoding=sample&temperature=0.8&seed=1&num_samples=2",
}
SHARES = (0.5, 0.3, 0.1, 0.1)


@dataclass(frozen=True, slots=True)
class Requests:
    """The photographs, drawn once."""

    files: list[bytes]

    @classmethod
    def drawn(cls) -> "Requests":
        """Makes the photographs."""
        return cls(photographs(PHOTOGRAPHS))

    def next(self, chance: random.Random) -> tuple[int, str]:
        """Returns the number of a photograph and the name of a way of decoding."""
        return chance.randrange(len(self.files)), chance.choices(list(OPTIONS), SHARES)[0]
