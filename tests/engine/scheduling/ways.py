"""Ways of decoding that share the scheduler's batches."""

from engine import Beam, Caption, Greedy, Sample
from engine.options import Decoding

LONG = Greedy(min_length=15, max_length=16)
WAYS: tuple[Decoding, ...] = (
    Greedy(),
    Greedy(min_length=7, style="sentence"),
    Greedy(no_repeat_ngram_size=2, bad_endings=("a", "the")),
    Greedy(max_length=4),
    Greedy(prefix="there is a"),
    Beam(),
    Beam(beam_size=1),
    Beam(beam_size=5, num_hypotheses=4, length_penalty=1.0),
    Beam(beam_size=3, prefix="there is", suppress=("red",), bad_endings=("a", "the")),
    Beam(beam_size=2, num_hypotheses=2, max_length=3, min_length=2),
    Sample(seed=1, temperature=2.0),
    Sample(seed=2, temperature=2.0, style="sentence"),
    Sample(seed=3, temperature=3.0, num_samples=4),
    Sample(seed=4, temperature=2.0, top_k=5, num_samples=2, no_repeat_ngram_size=2),
    Sample(seed=5, temperature=2.0, top_p=0.9, min_length=3),
)


def same(one: Caption, other: Caption) -> bool:
    """Says whether two captions are equal in every bit; NaN is equal to itself."""
    return repr(one) == repr(other)
