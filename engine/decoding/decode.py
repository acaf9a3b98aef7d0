"""From options to sentences: chooses the search, and turns the ids it finds into words."""

from collections.abc import Mapping, Sequence
from math import isnan, nan

import numpy as np

from engine.confidence import UNCALIBRATED, confidence
from engine.decoding.beam import beam_search
from engine.decoding.hypotheses import Hypotheses
from engine.decoding.independent import decode_rows, drawn, drawn_from_best, likeliest, unscored
from engine.decoding.model import StepModel
from engine.decoding.rules import Rules
from engine.manifest import Defaults
from engine.options import Beam, Decoding, Sample
from engine.result import Caption, Hypothesis
from engine.vocabulary import Vocabulary


def decode(
    model: StepModel,
    decoding: Decoding,
    vocabulary: Vocabulary,
    defaults: Defaults,
    calibration: Mapping[str, float] = UNCALIBRATED,
) -> list[Caption]:
    """Returns a caption for each image of the batch that `model` holds. Raises OptionsError.

    calibration: the coefficients of `confidence`.
    """
    rules = Rules.of(decoding, vocabulary, defaults)
    return captions(search(model, decoding, rules, defaults), vocabulary, decoding.style, calibration)


def rows_per_image(decoding: Decoding, defaults: Defaults) -> int:
    """Returns how many sentences grow side by side for each image."""
    match decoding:
        case Beam():
            return decoding.beam_size or max(defaults.beam_size, decoding.num_hypotheses)
        case Sample():
            return decoding.num_samples
        case _:
            return 1


def search(model: StepModel, decoding: Decoding, rules: Rules, defaults: Defaults) -> Hypotheses:
    """Runs the search that the options ask for."""
    penalty = defaults.length_penalty
    match decoding:
        case Beam():
            return beam_search(
                model,
                rules,
                beam_size=rows_per_image(decoding, defaults),
                num_hypotheses=decoding.num_hypotheses,
                length_penalty=penalty if decoding.length_penalty is None else decoding.length_penalty,
            )
        case Sample():
            # with a seed every image draws the same numbers, so that its place in the batch does not matter
            streams = decoding.num_samples * (model.images if decoding.seed is None else 1)
            random = np.random.default_rng(decoding.seed)
            uniforms = 1 - random.random((rules.max_length, streams), dtype=np.float32)  # in (0, 1]
            if decoding.top_k or decoding.top_p < 1:
                k = min(decoding.top_k or rules.vocabulary_size, rules.vocabulary_size)
                choose = drawn_from_best(model, uniforms, decoding.temperature, k=k, top_p=decoding.top_p)
            else:
                choose = drawn(model, uniforms, decoding.temperature)
        case _:
            choose = likeliest(model) if decoding.with_scores else unscored(model)
    num_rows = rows_per_image(decoding, defaults)
    return decode_rows(model.images, rules, choose, num_rows=num_rows, length_penalty=penalty)


def captions(
    found: Hypotheses, vocabulary: Vocabulary, style: str, calibration: Mapping[str, float] = UNCALIBRATED
) -> list[Caption]:
    """Turns the sentences of each image into a caption; equal ones are given once."""
    words, end = vocabulary.words, vocabulary.end_id
    result = []
    for tokens, token_log_probs, lengths, scores, finished in zip(*found.arrays(), strict=True):
        alternatives: dict[bytes, Hypothesis] = {}
        for i in range(len(scores)):
            length = int(lengths[i])
            ids = tokens[i, :length]
            if (i and scores[i] == -np.inf) or ids.tobytes() in alternatives:
                continue
            scored = not isnan(scores[i])
            log_probs = token_log_probs[i, : length if scored else 0].astype(np.float64)
            listed = log_probs.tolist()
            alternatives[ids.tobytes()] = Hypothesis(
                text=written([words[id_] for id_ in ids if id_ != end], style),
                score=float(scores[i]),
                log_prob=float(log_probs.sum()) if scored else nan,
                tokens=tuple(words[id_] for id_ in ids),
                token_log_probs=tuple(listed),
                finished=bool(finished[i]),
                confidence=confidence(listed, calibration, finished=bool(finished[i])),
            )
        result.append(Caption.best_of(list(alternatives.values())))
    return result


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
        totals[order[:live]] += log_probs[:, 0]
        parents = np.arange(live)
    return totals
