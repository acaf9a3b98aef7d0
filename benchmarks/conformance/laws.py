"""The laws that every provider must satisfy, and their verdicts. Opens no provider."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.search import FREE
from benchmarks.conformance.case import IMAGES, Case
from benchmarks.harness.workloads import EXACT, LEAST_SAME
from engine import Beam, Captioner, EngineError, Greedy, Sample, Scheduler
from engine.bundle.vocabulary import SPECIAL_WORDS
from engine.options import Decoding

MANY = 32  # of a large batch

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
        order = np.argsort(p)
        never = {int(i) for i in order[np.cumsum(p[order]) < 1e-6]}  # all of them together: less than one in 1,900 runs
        unlikely = sorted(there & never)
        assert not missing, "words of more than a twentieth are never drawn"
        assert not unlikely, "words that together have less than a millionth are drawn"


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
    assert "NaN" in told, f"NaN in features should raise an error, but gave {told or 'captions'}"
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
    """Whether a law is satisfied: fault is empty, or says how it is violated."""

    law: str
    fault: str


def check_laws(captioner: Captioner) -> list[Verdict]:
    """Returns a verdict for each law. Whatever a law raises breaks it."""
    case, verdicts = Case(captioner), []
    for name, law in LAWS.items():
        try:
            law(case)
        except Exception as error:  # a provider may raise anything
            verdicts.append(Verdict(name, " ".join(str(error).split())[:300] or type(error).__name__))
        else:
            verdicts.append(Verdict(name, ""))
    return verdicts
