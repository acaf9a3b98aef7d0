"""The searches of the baselines, over any decoder, in plain Python and numpy as a user would write them.

Rows leave the batch when their sentence is done, so no baseline computes more rows than necessary. Knows no library
that runs models.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from engine import Beam, Greedy, Sample
from engine.bundle.bundle import Bundle
from engine.bundle.vocabulary import Vocabulary
from engine.options import Decoding

State = tuple[Any, ...]
"""The decoder's state and then its context, a row for each sentence, in the arrays of the decoder's library."""
Choose = Callable[[int, Any], np.ndarray]
"""Gets the position and the log-probabilities (rows, vocabulary), -inf for what may not come; returns ids (rows,)."""

FREE: dict[str, Any] = {"no_repeat_ngram_size": 0, "bad_endings": ()}
"""What a baseline obeys: nothing. Whoever is compared with one is told the same, whatever the bundle's defaults."""


class Sentence(NamedTuple):
    """A caption: its words, and its log-probability over its length (END counted) to the power of the penalty."""

    text: str
    score: float


class Growing(NamedTuple):
    """A sentence in a beam."""

    tokens: tuple[int, ...]
    log_prob: float


class Decoder(Protocol):
    """A model's decoder in some library."""

    def start(self, features: np.ndarray) -> State:
        """Returns the first state of features (rows, *feature_shape)."""

    def step(self, token_ids: np.ndarray, state: State) -> tuple[Any, State]:
        """Reads a word per row; returns log-probabilities (rows, vocabulary), -inf for what may not come, and state."""

    def best(self, log_probs: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k best ids of each row and their log-probabilities, (rows, k) each and best first."""

    def draw(self, log_probs: Any) -> np.ndarray:
        """Draws an id for each row, (rows,), with the words' own probabilities."""


class Search:
    """What a bundle says of the end of sentences and of their scores, and the searches by it."""

    def __init__(self, bundle: Bundle) -> None:
        self.vocabulary: Vocabulary = bundle.vocabulary
        self.max_length = bundle.manifest.defaults.max_length
        self.length_penalty = bundle.manifest.defaults.length_penalty

    def decode(self, decoder: Decoder, features: np.ndarray, decoding: Decoding) -> list[Sentence]:
        """Writes a sentence for each row of features; of the options only the beam size counts."""
        match decoding:
            case Beam(beam_size=int(beam_size)):
                return self.beam(decoder, features, beam_size)
            case Greedy():
                return self.walk(decoder, features, lambda position, log_probs: decoder.best(log_probs, 1)[0][:, 0])
            case Sample():
                return self.walk(decoder, features, lambda position, log_probs: decoder.draw(log_probs))
        raise ValueError(f"the baselines do not support {decoding!r}")

    def walk(self, decoder: Decoder, features: np.ndarray, choose: Choose) -> list[Sentence]:
        """Writes a sentence for each row of features, each token as `choose` says."""
        end, state = self.vocabulary.end_id, decoder.start(features)
        tokens = np.full((len(features), self.max_length), end)
        totals = np.zeros(len(features))
        rows = np.arange(len(features))
        last = np.full(len(features), self.vocabulary.start_id)
        for position in range(self.max_length):
            log_probs, state = decoder.step(last, state)
            last = choose(position, log_probs)
            tokens[rows, position] = last
            totals[rows] += np.asarray(log_probs[np.arange(len(rows)), last])
            going = last != end
            if not going.all():
                rows, last, state = rows[going], last[going], tuple(part[going] for part in state)
            if not len(rows):
                break
        return [self._sentence(Growing(tuple(ids), total)) for ids, total in zip(tokens.tolist(), totals, strict=True)]

    def beam(self, decoder: Decoder, features: np.ndarray, beam_size: int) -> list[Sentence]:
        """Writes the best sentence of a beam search for each row of features.

        Each step ranks an image's 2 x beam_size best continuations; an END among the first beam_size is kept. An
        image is done when beam_size sentences have ended or no growing one can overtake the best that has.
        """
        state, each = decoder.start(features), 2 * beam_size
        found: list[list[Growing]] = [[] for _ in features]
        beams = {image: [Growing((), 0.0)] for image in range(len(features))}  # of the images that are not done
        for _ in range(self.max_length):
            last = [growing.tokens[-1:] or (self.vocabulary.start_id,) for beam in beams.values() for growing in beam]
            log_probs, state = decoder.step(np.array(last)[:, 0], state)
            ids, gained = decoder.best(log_probs, each)  # (rows, each)
            so_far = np.array([[growing.log_prob for growing in beam] for beam in beams.values()])  # (images, width)
            totals = (so_far.reshape(-1, 1) + gained).reshape(len(beams), -1)  # (images, width * each)
            places = np.argsort(-totals, axis=1, kind="stable")[:, :each]
            totals = np.take_along_axis(totals, places, axis=1)
            tokens = np.take_along_axis(ids.reshape(len(beams), -1), places, axis=1)
            following, parent_rows = {}, []
            candidates = zip(totals.tolist(), tokens.tolist(), (places // each).tolist(), strict=True)
            for place, (image, ranked) in enumerate(zip(beams, candidates, strict=True)):
                ended, going, parents = self._continue(beams[image], ranked, beam_size)
                found[image] += ended
                if len(found[image]) < beam_size and self._may_improve(going[0], found[image]):
                    following[image] = going
                    parent_rows += [place * so_far.shape[1] + parent for parent in parents]
            if not following:
                break
            beams = following
            state = tuple(part[parent_rows] for part in state)
        return [self._sentence(max(ended or beams[image], key=self._score)) for image, ended in enumerate(found)]

    def _continue(
        self, beam: list[Growing], ranked: tuple[list[float], list[int], list[int]], beam_size: int
    ) -> tuple[list[Growing], list[Growing], list[int]]:
        """Returns an image's sentences that end, those that go on, and the beams that these come from."""
        ended, going, parents = [], [], []
        for rank, (total, token, parent) in enumerate(zip(*ranked, strict=True)):
            growing = Growing((*beam[parent].tokens, token), total)
            if token != self.vocabulary.end_id:
                going.append(growing)
                parents.append(parent)
            elif rank < beam_size:
                ended.append(growing)
        return ended, going[:beam_size], parents[:beam_size]

    def _score(self, growing: Growing) -> float:
        return growing.log_prob / float(self._length(growing.tokens) ** self.length_penalty)

    def _length(self, tokens: Sequence[int]) -> int:
        """Counts tokens up to END, which counts."""
        return tokens.index(self.vocabulary.end_id) + 1 if self.vocabulary.end_id in tokens else len(tokens)

    def _may_improve(self, growing: Growing, ended: Sequence[Growing]) -> bool:
        reachable = growing.log_prob / float(self.max_length**self.length_penalty)
        return not ended or reachable > max(map(self._score, ended))

    def _sentence(self, growing: Growing) -> Sentence:
        return Sentence(self.vocabulary.decode(growing.tokens), self._score(growing))
