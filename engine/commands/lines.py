"""What commands print of an image: a line for people or one for programs. Owns no stream."""

import json
import os
import re
from collections.abc import Sequence
from math import isnan

from engine.commands.arguments import in_flags
from engine.errors import ImageError
from engine.result import Caption, Hypothesis


def explanation(error: ImageError) -> str:
    """Returns why an image could not be captioned, in the words of the command line."""
    return "; ".join(filter(None, (error.reason, in_flags(error.advice))))


def one_line(path: str) -> str:
    """Returns a path with control characters, line breaks and undecodable bytes escaped."""
    signs = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
    return re.sub(signs, lambda sign: sign[0].encode("unicode_escape").decode("ascii"), path)


def near(path: str) -> str:
    """Returns a path relative to the current folder if it is in it, otherwise as it is."""
    here = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118 - paths may be no UTF-8
    return path.removeprefix(here)


def trusted(caption: Caption, least: float | None) -> list[Hypothesis]:
    """Returns the hypotheses with at least this confidence, best first; none if the caption itself has less."""
    stay = [one for one in caption.alternatives if least is None or one.confidence >= least]
    return stay if stay and stay[0] is caption.alternatives[0] else []


def text_lines(path: str, kept: Sequence[Hypothesis], *, with_alternatives: bool) -> str:
    """Returns the lines for people."""
    others = kept if with_alternatives else ()
    return "\n".join([f"{one_line(path)}\t{kept[0].text}", *(f"\t{one.score:.3g}\t{one.text}" for one in others)])


def json_line(path: str, result: Caption | ImageError, kept: Sequence[Hypothesis]) -> str:
    """Returns the line for programs."""
    if isinstance(result, ImageError):
        return json.dumps({"image": path, "error": explanation(result)})
    best = {"image": path, **_scores(result)} | ({} if kept else {"text": None})
    return json.dumps(best | {"alternatives": [_scores(one) for one in kept]})


def _scores(hypothesis: Hypothesis) -> dict[str, str | float | None]:
    return {
        "text": hypothesis.text,
        "score": hypothesis.score,
        "log_prob": hypothesis.log_prob,
        "confidence": None if isnan(hypothesis.confidence) else hypothesis.confidence,  # JSON knows no NaN
    }
