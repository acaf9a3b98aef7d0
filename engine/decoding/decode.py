"""From options to captions: chooses the search, runs it, and turns token ids into words."""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.bundle.manifest import Defaults
from engine.bundle.vocabulary import Vocabulary
from engine.confidence import UNCALIBRATED, confidence
from engine.decoding.beam import BeamSearch
from engine.decoding.constraints import TokenConstraints
from engine.decoding.greedy_and_sampling import FullSampling, GreedySearch, TruncatedSampling
from engine.decoding.hypotheses import TokenHypothesis
from engine.decoding.search import Draw, Search
from engine.decoding.step_model import StepModel
from engine.decoding.step_request import nan_error, nan_rows
from engine.options import Beam, Constraints, Decoding, Sample
from engine.result import Caption, Hypothesis


def decode(
    model: StepModel,
    decoding: Decoding,
    constraints: TokenConstraints,
    vocabulary: Vocabulary,
    defaults: Defaults,
    calibration: Mapping[str, float] = UNCALIBRATED,
) -> list[Caption]:
    """Returns a caption for each image in `model`.

    constraints: those of the options, by `TokenConstraints.of`. calibration: the coefficients of `confidence`.
    """
    search = make_search(decoding, constraints, defaults)
    found = run_search(model, search, draws_of([decoding] * model.images))
    return [make_caption(hypotheses, vocabulary, decoding, calibration) for hypotheses in found]


def rows_per_image(decoding: Decoding, defaults: Defaults) -> int:
    """Returns how many hypotheses are decoded at once for each image."""
    match decoding:
        case Beam():
            return decoding.beam_size or max(defaults.beam_size, decoding.num_hypotheses)
        case Sample():
            return decoding.num_samples
        case _:
            return 1


def make_search(decoding: Decoding, constraints: TokenConstraints, defaults: Defaults) -> Search:
    """Returns the search for these options, still without images."""
    penalty, rows = defaults.length_penalty, rows_per_image(decoding, defaults)
    match decoding:
        case Beam():
            return BeamSearch(
                constraints,
                beam_size=rows,
                num_hypotheses=decoding.num_hypotheses,
                length_penalty=penalty if decoding.length_penalty is None else decoding.length_penalty,
            )
        case Sample() if decoding.top_k or decoding.top_p < 1:
            k = min(decoding.top_k or constraints.vocabulary_size, constraints.vocabulary_size)
            top_p = decoding.top_p
            return TruncatedSampling(constraints, k=k, top_p=top_p, num_rows=rows, length_penalty=penalty)
        case Sample():
            return FullSampling(constraints, num_rows=rows, length_penalty=penalty)
        case _:
            return GreedySearch(constraints, num_rows=rows, length_penalty=penalty)


def draws_of(decodings: Sequence[Decoding]) -> list[Draw]:
    """Returns the settings that each image of a search has for itself; none unless tokens are drawn."""
    return [Draw(decoding.seed, decoding.temperature) for decoding in decodings if isinstance(decoding, Sample)]


def run_search(model: StepModel, search: Search, draws: Sequence[Draw] = ()) -> list[list[TokenHypothesis]]:
    """Decodes the images in a model; returns the hypotheses of each. Raises EngineError for NaN."""
    found: dict[int, list[TokenHypothesis]] = {}
    search.add(range(model.images), np.arange(model.images), draws)
    while len(found) < model.images:
        request = search.next_step()
        ids, log_probs = request.run(model)
        if nan_rows(log_probs) is not None:
            raise nan_error()
        found.update(search.advance(ids, log_probs))
    return [found[image] for image in range(model.images)]


def make_caption(
    hypotheses: Sequence[TokenHypothesis],
    vocabulary: Vocabulary,
    options: Constraints,
    calibration: Mapping[str, float] = UNCALIBRATED,
) -> Caption:
    """Turns the hypotheses of an image, best first, into a caption; duplicates are dropped."""
    words, end = vocabulary.words, vocabulary.end_id
    given = len(vocabulary.split(options.prefix)) if options.prefix else 0
    alternatives: dict[bytes, Hypothesis] = {}
    for hypothesis in hypotheses:
        key = hypothesis.tokens.tobytes()
        if key in alternatives:
            continue
        ids = hypothesis.tokens.tolist()
        log_probs = hypothesis.token_log_probs.astype(np.float64)
        listed = log_probs.tolist()
        alternatives[key] = Hypothesis(
            text=as_text([words[id_] for id_ in ids if id_ != end], options.style),
            score=hypothesis.score,
            log_prob=float(log_probs.sum()),
            tokens=tuple([words[id_] for id_ in ids]),
            token_log_probs=tuple(listed),
            finished=hypothesis.finished,
            confidence=confidence(listed, calibration, given=given),
        )
    return Caption.best_of(list(alternatives.values()))


def as_text(words: Sequence[str], style: str) -> str:
    """Returns words as text; for the styles see Constraints."""
    text = " ".join(words)
    return f"{text[0].upper()}{text[1:]}." if text and style == "sentence" else text


def sentence_log_probs(model: StepModel, sentences: list[list[int]], vocabulary_size: int) -> np.ndarray:
    """Returns the log-probability of one given sentence for each image, float64 (images,).

    A sentence is START, its words' ids and END, at least two tokens.
    """
    order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))  # longest first: rows leave from the end
    lengths = np.array([len(sentences[i]) for i in order])
    totals = np.zeros(len(sentences))
    parents = np.array(order)
    for position in range(lengths.max(initial=1) - 1):
        live = int((lengths > position + 1).sum())
        given = np.array([sentences[i][position : position + 2] for i in order[:live]])  # (rows, 2)
        bias = np.full((live, vocabulary_size), -np.inf, np.float32)
        bias[np.arange(live), given[:, 1]] = 0  # the only candidate left is the given token
        _, log_probs = model.step(given[:, 0].copy(), parents[:live], bias, 1)
        if nan_rows(log_probs) is not None:
            raise nan_error()
        totals[order[:live]] += log_probs[:, 0]
        parents = np.arange(live)
    return totals
