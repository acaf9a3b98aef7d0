"""Scores against values worked out by hand and against pycocoevalcap's own, with and without Java."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.scored import make_captions
from training.metrics import java, tokens
from training.metrics import scores as scoring
from training.metrics.counts import METRICS, meteor_scores
from training.metrics.scores import PTB, SIMPLE, MetricsError, score_captions
from training.metrics.tokens import Tokens, split_ptb, split_simply

HAS_JAVA = shutil.which("java") is not None
REFERENCES = {
    "a": ["a dog runs over green grass", "the brown dog is running"],
    "b": ["two children play in the sand", "children build a castle on the beach"],
    "c": ["a man climbs a steep rock", "a climber hangs from the cliff"],
}
IDENTICAL = {name: texts[0] for name, texts in REFERENCES.items()}


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_java")
def test_without_java_meteor_is_left_out_and_the_tokeniser_named() -> None:
    scores = score_captions(REFERENCES, IDENTICAL)
    assert "METEOR" not in scores.values
    assert scores.tokeniser == SIMPLE
    first, second = scores.notes
    assert "METEOR is skipped" in first
    assert "install Java 17: apt install openjdk-17-jdk-headless" in second


def test_a_java_that_does_not_run_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub = tmp_path / "java"
    monkeypatch.setenv("PATH", str(tmp_path))
    for script, why in (
        ("#!/bin/sh\necho 'Unable to locate a Java Runtime.' >&2\nexit 1\n", "Unable to locate a Java Runtime."),
        ("#!/bin/sh\nexit 3\n", "exit status 3"),
        ("#!/no/such/shell\n", "[Errno 2]"),
    ):
        stub.write_text(script)
        stub.chmod(0o755)
        scores = score_captions(REFERENCES, IDENTICAL)
        assert scores.tokeniser == SIMPLE
        assert f"{stub} failed: {why}" in scores.notes[1]
        assert "install Java 17" in scores.notes[1]


@pytest.mark.usefixtures("no_java")
def test_case_and_punctuation_do_not_count() -> None:
    assert score_captions(REFERENCES, {name: f"{text.upper()}!" for name, text in IDENTICAL.items()}) == score_captions(
        REFERENCES, IDENTICAL
    )


def test_what_cannot_be_scored_is_named() -> None:
    with pytest.raises(MetricsError, match="2 lack one: a, b"):
        score_captions({"a": ["x"], "c": ["x"]}, {"b": "x", "c": "x"})
    with pytest.raises(MetricsError, match="nothing to score"):
        score_captions({}, {})
    with pytest.raises(MetricsError, match="nothing to score"):
        score_captions({"a": []}, {"a": "x"})


@pytest.mark.skipif(not HAS_JAVA, reason="needs Java")
def test_tokens_are_those_of_pycocoevalcap() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = ["A man's dog, isn't it?", "", 'Café No. 2 (red) -- 1 1/2 "quoted"; don\'t!', "tail", ""]
    ours = split_ptb("java", {"x": texts, "y": ["One."]})
    theirs = PTBTokenizer().tokenize({"x": [{"caption": text} for text in texts], "y": [{"caption": "One."}]})
    assert ours == theirs


def run_pycocoevalcap(truths: Tokens, guesses: Tokens) -> tuple[dict[str, float], dict[str, list[float]]]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, bleu_each = Bleu(4).compute_score(truths, guesses, verbose=0)
    rouge, rouge_each = Rouge().compute_score(truths, guesses)
    cider, cider_each = Cider().compute_score(truths, guesses)
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    return (
        dict(zip(names, [*bleu, rouge, cider], strict=True)),
        dict(zip(names, [*bleu_each, rouge_each, cider_each], strict=True)),
    )


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize("images", [1, 2, 60])
def test_figures_of_the_corpus_and_of_each_image_are_pycocoevalcaps(images: int) -> None:
    references, captions = make_captions(images, seed=images)
    captions["000.jpg"] = ""  # says nothing
    scores = score_captions(references, captions)
    corpus, each = run_pycocoevalcap(split_simply(references), {name: [text] for name, text in captions.items()})
    assert scores.values == pytest.approx(corpus, rel=0, abs=1e-12)
    found = scores.per_image()
    assert list(found) == list(captions)
    for metric, values in each.items():
        assert [found[name][metric] for name in captions] == pytest.approx(list(values), rel=0, abs=1e-12)


@pytest.mark.skipif(not HAS_JAVA, reason="needs Java")
def test_with_java_tokens_are_ptb_and_meteor_is_pycocoevalcaps() -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    references, captions = make_captions(25, seed=1)
    captions["001.jpg"], captions["002.jpg"] = "zebra", references["002.jpg"][0]  # nothing right, everything right
    scores = score_captions(references, captions)
    assert scores.tokeniser == PTB
    assert list(scores.values) == list(METRICS)
    assert scores.notes == ()
    theirs = Meteor()
    try:
        corpus, each = theirs.compute_score(references, {name: [text] for name, text in captions.items()})
    finally:
        theirs.meteor_p.stdin.close()  # its own clean-up leaves two pipes open
        theirs.meteor_p.wait(60)
        theirs.meteor_p.stdout.close()
        theirs.meteor_p.stderr.close()
    assert scores.values["METEOR"] == pytest.approx(corpus, rel=0, abs=1e-12)
    ours = [values["METEOR"] for values in scores.per_image().values()]
    assert ours == pytest.approx(each, rel=0, abs=1e-12)
    assert ours[1] == 0
    assert ours[2] == pytest.approx(1)


def test_meteor_of_nothing_is_nothing() -> None:
    assert meteor_scores(np.zeros((2, 23))).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ([sys.executable, "-c", "import time; time.sleep(60)"], r"METEOR did not finish within 1 seconds"),
        (["/nowhere/java"], "METEOR failed: .*No such file"),
        ([sys.executable, "-c", "import sys; sys.exit('no memory')"], "METEOR failed: no memory"),
    ],
)
def test_a_program_that_fails_or_hangs_is_one_sentence(command: list[str], sentence: str) -> None:
    with pytest.raises(MetricsError, match=sentence):
        java.run("METEOR", command, [], 1 if "sleep" in command[-1] else 60)


def test_only_a_newline_ends_a_line() -> None:
    copy = "import sys; sys.stdout.write(sys.stdin.read())"
    lines = ["a\u2028b", "", "c\x85d"]
    assert java.run("it", [sys.executable, "-X", "utf8", "-c", copy], lines, 60) == lines


def test_a_metric_that_fails_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise MetricsError("it failed: no memory")

    monkeypatch.setattr(tokens, "find_java", lambda: "java")
    monkeypatch.setattr(tokens, "split_ptb", lambda _, sentences: split_simply(sentences))
    monkeypatch.setattr(scoring, "meteor_rows", fail)
    scores = score_captions(REFERENCES, IDENTICAL)
    assert list(scores.values) == [metric for metric in METRICS if metric != "METEOR"]
    assert scores.notes == ("METEOR is skipped: it failed: no memory",)


@pytest.mark.parametrize("printed", ["1 2 3", "no numbers", " ".join(["nan"] * 23)])
def test_meteor_that_prints_something_else_is_an_error(printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.metrics import meteor

    monkeypatch.setattr(meteor, "run", lambda *_: [printed] * 3)
    said = split_simply(REFERENCES)
    with pytest.raises(MetricsError, match="something other than 23 counts"):
        meteor.meteor_rows("java", said, said)
    monkeypatch.setattr(meteor, "run", lambda *_: [printed])
    with pytest.raises(MetricsError, match="METEOR returned counts for 1 of 3 sentences"):
        meteor.meteor_rows("java", said, said)
