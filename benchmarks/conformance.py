"""Laws that each provider has to keep, on a bundle's own graphs: `python -m benchmarks.conformance --provider cuda`.

What is compared with is ONNX Runtime on the CPU by plain session.run, on the portable graphs in fp32, with searches in
plain Python: none of the engine's bindings, fused steps or buffers. Times nothing.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.photographs import photographs
from benchmarks.plain_session import PlainSession
from benchmarks.search import FREE
from benchmarks.works import EXACT, LEAST_SAME
from engine import Beam, Caption, Captioner, EngineError, Greedy, RuntimeOptions, Sample, Scheduler
from engine.bundle.vocabulary import SPECIAL_WORDS
from engine.options import Decoding
from engine.selfcheck.compare import arithmetic_of

IMAGES, BATCH = 19, 8
"""Batches of 8, 8 and 3: the last is a smaller one."""
MANY = 32  # of a large batch
FEATURES = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest |found - expected| / |expected| of an image's features; INTEGERS where a precision is not named."""
NATS = {"fp32": 1e-3, "fp16": 0.1}
"""Largest error of the log-probability of a sentence, for each of its words."""
INTEGERS = 0.5


class Case:
    """A way of running the engine, and what it is held against."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner = captioner
        self.plain = PlainSession(captioner.bundle)
        self.files = photographs(IMAGES)
        precision = arithmetic_of(captioner._graphs)
        self.exact = precision == "fp32"
        self.features_within = FEATURES.get(precision, INTEGERS)
        self.nats_within = NATS.get(precision, INTEGERS)

    @cached_property
    def expected(self) -> np.ndarray:
        """Features float32 (images, feature_size) by plain session.run, of the pixels that the engine reads."""
        pixels = [np.empty(self._shape, np.uint8) for _ in self.files]
        for entry, (file, out) in enumerate(zip(self.files, pixels, strict=True)):
            assert self.captioner._pipeline._read(entry, file, out) is None
        return self.plain.encode(np.stack(pixels))

    @property
    def _shape(self) -> tuple[int, int, int]:
        image = self.captioner.bundle.manifest.image
        return image.height, image.width, 3

    @cached_property
    def features(self) -> np.ndarray:
        """The same by the engine."""
        return self.captioner.encode(self.files)

    def decode(self, decoding: Decoding, features: np.ndarray | None = None) -> list[Caption]:
        """Decodes features, those by plain session.run unless others are given."""
        return self.captioner.caption_features(self.expected if features is None else features, decoding)

    def likelihoods(self, sentences: Sequence[Caption]) -> np.ndarray:
        """Returns the log-probability of sentences under the reference: float64 (images,)."""
        ids = self.captioner.bundle.vocabulary.ids
        tokens = [[ids[word] for word in sentence.tokens] for sentence in sentences]
        totals = np.zeros(len(tokens))
        for image, sentence in enumerate(tokens):
            state = self.plain.start(self.expected[image : image + 1])
            last = self.captioner.bundle.vocabulary.start_id
            for token in sentence:
                log_probs, state = self.plain.score(np.array([last]), state)
                totals[image] += log_probs[0, token]
                last = token
        return totals


Law = Callable[[Case], None]


def features_are_those_of_plain_session_run(case: Case) -> None:
    off = np.linalg.norm(case.features - case.expected, axis=1) / np.linalg.norm(case.expected, axis=1)
    assert off.max() <= case.features_within, f"features are off by {off.max():.2g}"


def an_image_has_the_same_features_alone_and_in_a_batch(case: Case) -> None:
    alone = np.concatenate([case.captioner.encode([file]) for file in case.files])
    off = np.linalg.norm(alone - case.features, axis=1) / np.linalg.norm(case.features, axis=1)
    assert off.max() <= 1e-4, f"features are off by {off.max():.2g}"


def a_large_batch_is_its_images_one_by_one(case: Case) -> None:
    small = case.captioner
    large = Captioner(
        small.bundle.path,
        provider=small.provider,
        precision=small.precision,
        batch_size=MANY,
        runtime=small.choice.runtime,
    )
    files = [case.files[i % IMAGES] for i in range(MANY + 1)]
    features = large.encode(files)
    expected = np.stack([case.features[i % IMAGES] for i in range(MANY + 1)])
    off = np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert off.max() <= 1e-4, f"features are off by {off.max():.2g}"
    for decoding in (Greedy(), Beam(beam_size=5)):
        alone = [caption.tokens for caption in case.decode(decoding, expected[:IMAGES])]
        together = [caption.tokens for caption in large.caption_features(expected, decoding)]
        assert together == [alone[i % IMAGES] for i in range(MANY + 1)], f"{decoding} differs in a large batch"


def _as_plain(case: Case, decoding: Decoding) -> None:
    """A sentence is the plain search's; in a precision that rounds it is nearly as likely."""
    found, expected = case.decode(decoding), case.plain.decode(case.expected, decoding)
    same = np.array([one.text == other.text for one, other in zip(found, expected, strict=True)])
    likely, lengths = case.likelihoods(found), np.array([len(sentence.tokens) for sentence in found])
    own = np.array([sentence.log_prob for sentence in found])
    off = np.abs(own - likely) / lengths
    assert off.max() <= case.nats_within, f"log-probabilities of sentences are off by {off.max():.2g} a word"
    if case.exact:
        assert same.all(), f"{(~same).sum()} of {len(same)} sentences are others than plain search finds"
        scores = own / lengths**case.captioner.bundle.manifest.defaults.length_penalty
        np.testing.assert_allclose(scores, [sentence.score for sentence in expected], EXACT[1], EXACT[0])
    else:
        assert same.mean() >= LEAST_SAME, f"only {same.mean():.0%} of the sentences are those of fp32"


def greedy_is_plain_greedy(case: Case) -> None:
    _as_plain(case, Greedy(**FREE))


def beam_search_is_plain_beam_search(case: Case) -> None:
    for beam_size in (3, 5):
        _as_plain(case, Beam(beam_size=beam_size, **FREE))


def a_given_sentence_has_the_log_probability_of_plain_steps(case: Case) -> None:
    captions = ["a dog runs through the grass", "two men", "a child in a red shirt is playing with a ball in the water"]
    features, vocabulary = case.captioner.encode(case.files[:3]), case.captioner.bundle.vocabulary
    found = case.captioner.score(case.files[:3], captions)
    totals = np.zeros(3)
    for image, caption in enumerate(captions):
        state = case.plain.start(features[image : image + 1])
        ids = vocabulary.encode(caption)
        for token, following in itertools.pairwise(ids):
            log_probs, state = case.plain.score(np.array([token]), state)
            totals[image] += log_probs[0, following]
    words = np.array([len(vocabulary.encode(caption)) - 1 for caption in captions])
    off = np.abs(found - totals) / words
    assert off.max() <= case.nats_within, f"log-probabilities are off by {off.max():.2g} a word"


def beam_1_and_top_k_1_are_greedy(case: Case) -> None:
    greedy = [caption.tokens for caption in case.decode(Greedy())]
    assert [caption.tokens for caption in case.decode(Beam(beam_size=1))] == greedy
    assert [caption.tokens for caption in case.decode(Sample(top_k=1, seed=0))] == greedy


def greedy_without_scores_finds_the_same_words(case: Case) -> None:
    scored, unscored = (case.decode(Greedy(with_scores=scores, **FREE)) for scores in (True, False))
    assert [caption.tokens for caption in scored] == [caption.tokens for caption in unscored]


def a_batch_is_its_images_one_by_one(case: Case) -> None:
    for decoding in (Greedy(), Beam(beam_size=4), Sample(seed=3, num_samples=2), Sample(seed=3, top_p=0.8)):
        together = [caption.tokens for caption in case.decode(decoding)]
        alone = [case.decode(decoding, case.expected[i : i + 1])[0].tokens for i in range(IMAGES)]
        assert together == alone, f"{decoding} says something else of an image in a batch than of it alone"


def memory_that_is_used_again_holds_nothing_over(case: Case) -> None:
    for decoding in (Greedy(), Beam(beam_size=3, num_hypotheses=3), Sample(seed=1)):
        first = case.decode(decoding)
        case.decode(Beam(beam_size=5), case.expected[::-1][:7])
        assert case.decode(decoding) == first, f"{decoding} differs the second time"


def drawn_words_are_as_frequent_as_they_are_likely(case: Case) -> None:
    draws = 512
    ids = case.captioner.bundle.vocabulary.ids
    for temperature in (1.0, 0.5):
        decoding = Sample(num_samples=draws, seed=5, temperature=temperature, max_length=1, **FREE)
        drawn = case.decode(decoding, case.expected[:1])
        # equal draws are returned once: which words there are is compared, by the chance that each is missing
        start = np.array([case.captioner.bundle.vocabulary.start_id])
        log_probs, _ = case.plain.score(start, case.plain.start(case.expected[:1]))
        log_probs[:, case.plain.never] = -np.inf
        p = np.exp(log_probs[0].astype(np.float64) / temperature)
        p /= p.sum()
        there = {ids[one.tokens[0]] for one in drawn[0].alternatives if one.tokens}
        missing = [i for i in np.nonzero(p > 0.05)[0] if i not in there]
        unlikely = [i for i in there if p[i] < 1e-6]
        assert not missing, "words of more than a twentieth are never drawn"
        assert not unlikely, "words of less than a millionth are drawn"


def the_same_seed_draws_the_same_words_wherever_an_image_stands(case: Case) -> None:
    decoding = Sample(seed=11, temperature=0.8)
    forwards = [caption.tokens for caption in case.decode(decoding)]
    assert [caption.tokens for caption in case.decode(decoding, case.expected[::-1].copy())] == forwards[::-1]


def constraints_hold(case: Case) -> None:
    decodings: list[Decoding] = [
        Greedy(prefix="there is", suppress=("a", "man", "dog"), min_length=6, no_repeat_ngram_size=1),
        Beam(prefix="there is", suppress=("a", "man", "dog"), min_length=6, no_repeat_ngram_size=1),
        Sample(prefix="there is", suppress=("a", "man", "dog"), min_length=6, no_repeat_ngram_size=1, seed=2),
    ]
    for decoding in decodings:
        for caption in case.decode(decoding):
            words = caption.text.split()
            assert words[:2] == ["there", "is"], caption.text
            assert not {"a", "man", "dog", *SPECIAL_WORDS} & set(words), caption.text
            assert len(words) >= 6, caption.text
            assert len(set(words)) == len(words), caption.text


def images_that_join_a_running_batch_get_the_captions_that_they_get_alone(case: Case) -> None:
    decodings: list[Decoding] = [Greedy(), Beam(beam_size=4), Sample(seed=7), Greedy(max_length=4)]
    decodings.append(Sample(seed=8, top_k=5))
    pairs = [(file, decodings[i % len(decodings)]) for i, file in enumerate(case.files)]
    alone = [case.captioner.caption([file], decoding)[0].text for file, decoding in pairs]
    with Scheduler(case.captioner) as scheduler:
        futures = [scheduler.submit(file, decoding) for file, decoding in pairs]
        assert [future.result(60).text for future in futures] == alone


def threads_side_by_side_disturb_nobody(case: Case) -> None:
    expected = [caption.text for caption in case.captioner.caption(case.files, Beam())]
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(case.captioner.caption, case.files, Beam()) for _ in range(4)]
        for call in calls:
            assert [caption.text for caption in call.result(120)] == expected


def features_that_are_no_numbers_are_an_error_and_the_next_call_is_right(case: Case) -> None:
    first, told = case.decode(Greedy()), ""
    try:
        case.decode(Greedy(), np.full_like(case.expected, np.nan))
    except EngineError as error:
        told = str(error)
    assert "NaN" in told, f"features that are no numbers were answered with {told or 'captions'}"
    assert case.decode(Greedy()) == first


LAWS: dict[str, Law] = {
    law.__name__.replace("_", " "): law
    for law in (
        features_are_those_of_plain_session_run,
        an_image_has_the_same_features_alone_and_in_a_batch,
        a_large_batch_is_its_images_one_by_one,
        greedy_is_plain_greedy,
        beam_search_is_plain_beam_search,
        a_given_sentence_has_the_log_probability_of_plain_steps,
        beam_1_and_top_k_1_are_greedy,
        greedy_without_scores_finds_the_same_words,
        a_batch_is_its_images_one_by_one,
        memory_that_is_used_again_holds_nothing_over,
        drawn_words_are_as_frequent_as_they_are_likely,
        the_same_seed_draws_the_same_words_wherever_an_image_stands,
        constraints_hold,
        images_that_join_a_running_batch_get_the_captions_that_they_get_alone,
        threads_side_by_side_disturb_nobody,
        features_that_are_no_numbers_are_an_error_and_the_next_call_is_right,
    )
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a law is kept: fault is empty, or says how it is broken."""

    law: str
    fault: str


def judge(captioner: Captioner) -> list[Verdict]:
    """Returns a verdict for each law. Whatever a law raises breaks it."""
    case, verdicts = Case(captioner), []
    for name, law in LAWS.items():
        try:
            law(case)
        except Exception as error:  # a provider raises what it likes
            verdicts.append(Verdict(name, " ".join(str(error).split())[:300] or type(error).__name__))
        else:
            verdicts.append(Verdict(name, ""))
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. 0: all laws are kept; 1: some are not; 2: the provider does not open."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--bundle", type=Path, help="the bundle; the one that ships if left out")
    parser.add_argument("--provider", default="cpu", help="as Captioner takes it (default: cpu)")
    parser.add_argument("--precision", nargs="+", default=["fp32"], help="one or more (default: fp32)")
    parser.add_argument("--cuda-graphs", action="store_true")
    options = parser.parse_args(arguments)
    broken = 0
    for precision in options.precision:
        runtime = RuntimeOptions(cuda_graphs=options.cuda_graphs)
        try:
            captioner = Captioner(
                options.bundle, provider=options.provider, precision=precision, batch_size=BATCH, runtime=runtime
            )
        except EngineError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        for verdict in judge(captioner):
            broken += bool(verdict.fault)
            print(f"{captioner.provider} {precision}: {verdict.law}: {verdict.fault or 'holds'}", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    raise SystemExit(main())
