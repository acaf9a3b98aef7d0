"""From options to sentences: chooses the search, and turns the ids it finds into words."""

from collections.abc import Mapping, Sequence
from math import isnan, nan

import numpy as np

from engine.bundle.manifest import Defaults
from engine.bundle.vocabulary import Vocabulary, split
from engine.confidence import UNCALIBRATED, confidence
from engine.decoding.beam import BeamSearch
from engine.decoding.constraints import Rules
from engine.decoding.greedy_and_sampling import Choose, Drawn, DrawnFromBest, Likeliest, RowSearch, Unscored
from engine.decoding.hypotheses import Sentence
from engine.decoding.search import Draw, Search
from engine.decoding.step_model import StepModel
from engine.decoding.step_request import no_numbers, no_numbers_error
from engine.options import Beam, Constraints, Decoding, Sample
from engine.result import Caption, Hypothesis


def decode(
    model: StepModel,
    decoding: Decoding,
    rules: Rules,
    vocabulary: Vocabulary,
    defaults: Defaults,
    calibration: Mapping[str, float] = UNCALIBRATED,
) -> list[Caption]:
    """Returns a caption for each image of the batch that `model` holds.

    rules: those of the options, as `Rules.of` translates them. calibration: the coefficients of `confidence`.
    """
    search = begin(decoding, rules, defaults)
    found = run(model, search, draws_of([decoding] * model.images))
    return [caption(sentences, vocabulary, decoding, calibration) for sentences in found]


def rows_per_image(decoding: Decoding, defaults: Defaults) -> int:
    """Returns how many sentences grow side by side for each image."""
    match decoding:
        case Beam():
            return decoding.beam_size or max(defaults.beam_size, decoding.num_hypotheses)
        case Sample():
            return decoding.num_samples
        case _:
            return 1


def begin(decoding: Decoding, rules: Rules, defaults: Defaults) -> Search:
    """Returns the search that the options ask for, without an image yet."""
    penalty, num_rows = defaults.length_penalty, rows_per_image(decoding, defaults)
    choose: Choose
    match decoding:
        case Beam():
            return BeamSearch(
                rules,
                beam_size=num_rows,
                num_hypotheses=decoding.num_hypotheses,
                length_penalty=penalty if decoding.length_penalty is None else decoding.length_penalty,
            )
        case Sample() if decoding.top_k or decoding.top_p < 1:
            k = min(decoding.top_k or rules.vocabulary_size, rules.vocabulary_size)
            choose = DrawnFromBest(k, decoding.top_p)
        case Sample():
            choose = Drawn()
        case _:
            choose = Likeliest() if decoding.with_scores else Unscored(rules)
    return RowSearch(rules, choose, num_rows=num_rows, length_penalty=penalty)


def draws_of(decodings: Sequence[Decoding]) -> list[Draw]:
    """Returns what images that share a search have of their own; nothing where nothing is drawn."""
    return [Draw(decoding.seed, decoding.temperature) for decoding in decodings if isinstance(decoding, Sample)]


def run(model: StepModel, search: Search, draws: Sequence[Draw] = ()) -> list[list[Sentence]]:
    """Decodes the images that a model holds; returns the sentences of each. Raises EngineError for NaN."""
    found: dict[int, list[Sentence]] = {}
    search.join(range(model.images), np.arange(model.images), draws)
    while len(found) < model.images:
        ids, values = search.ask().put(model)
        if no_numbers(values) is not None:
            raise no_numbers_error()
        found.update(search.tell(ids, values, 0))
    return [found[image] for image in range(model.images)]


def caption(
    sentences: Sequence[Sentence],
    vocabulary: Vocabulary,
    asked: Constraints,
    calibration: Mapping[str, float] = UNCALIBRATED,
) -> Caption:
    """Turns the sentences of an image, best first, into a caption; equal ones are given once. asked: the options."""
    words, end = vocabulary.words, vocabulary.end_id
    given = len(split(asked.prefix)) if asked.prefix else 0
    alternatives: dict[bytes, Hypothesis] = {}
    for sentence in sentences:
        key = sentence.tokens.tobytes()
        if key in alternatives:
            continue
        scored, ids = not isnan(sentence.score), sentence.tokens.tolist()
        log_probs = sentence.token_log_probs[: len(ids) if scored else 0].astype(np.float64)
        listed = log_probs.tolist()
        alternatives[key] = Hypothesis(
            text=written([words[id_] for id_ in ids if id_ != end], asked.style),
            score=sentence.score,
            log_prob=float(log_probs.sum()) if scored else nan,
            tokens=tuple([words[id_] for id_ in ids]),
            token_log_probs=tuple(listed),
            finished=sentence.finished,
            confidence=confidence(listed, calibration, given=given),
        )
    return Caption.best_of(list(alternatives.values()))


def written(words: Sequence[str], style: str) -> str:
    """Returns words as text; Constraints says what the styles are."""
    text = " ".join(words)
    return f"{text[0].upper()}{text[1:]}." if text and style == "sentence" else text


def sentence_log_probs(model: StepModel, sentences: list[list[int]], vocabulary_size: int) -> np.ndarray:
    """Returns the log-probability of one given sentence for each image, float64 (images,).

    A sentence is START, its words' ids and END, at least two tokens.
    """
    order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))  # the longest first: rows end at the end
    lengths = np.array([len(sentences[i]) for i in order])
    totals = np.zeros(len(sentences))
    parents = np.array(order)
    for position in range(lengths.max(initial=1) - 1):
        live = int((lengths > position + 1).sum())
        given = np.array([sentences[i][position : position + 2] for i in order[:live]])  # (rows, 2)
        bias = np.full((live, vocabulary_size), -np.inf, np.float32)
        bias[np.arange(live), given[:, 1]] = 0  # the only candidate left is the given token
        _, log_probs = model.step(given[:, 0].copy(), parents[:live], bias, 1)
        if no_numbers(log_probs) is not None:
            raise no_numbers_error()
        totals[order[:live]] += log_probs[:, 0]
        parents = np.arange(live)
    return totals
