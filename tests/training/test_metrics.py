"""Scores against values worked out by hand, with and without Java."""

import math
import shutil
import sys
from pathlib import Path

import pytest

from training import metrics
from training.metrics import PTB, SIMPLE, MetricsError, Scores, score_captions

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
    assert scores.meteor is None
    assert "METEOR" not in scores.named()
    assert scores.tokeniser == SIMPLE
    assert "METEOR is left out" in str(scores)
    assert r"tokeniser: lower-case \w+ words" in str(scores)


@pytest.mark.usefixtures("no_java")
def test_identical_sentences_score_one() -> None:
    scores = score_captions(REFERENCES, IDENTICAL)
    assert scores.bleu == pytest.approx((1, 1, 1, 1))
    assert scores.rouge_l == pytest.approx(1)


@pytest.mark.usefixtures("no_java")
def test_case_and_punctuation_do_not_count() -> None:
    assert score_captions(REFERENCES, {name: f"{text.upper()}!" for name, text in IDENTICAL.items()}) == score_captions(
        REFERENCES, IDENTICAL
    )


@pytest.mark.usefixtures("no_java")
def test_bleu_equals_the_value_worked_out_by_hand() -> None:
    # Words: the (clipped to 1), cat, sat = 3 of 4. Pairs: "the cat" of "the cat", "cat the", "the sat" = 1 of 3.
    # 4 words against a reference of 6: brevity penalty exp(1 - 6 / 4).
    scores = score_captions({"x": ["the cat sat on a mat"]}, {"x": "the cat the sat"})
    penalty = math.exp(1 - 6 / 4)
    assert scores.bleu[0] == pytest.approx(penalty * 3 / 4, rel=1e-6)
    assert scores.bleu[1] == pytest.approx(penalty * math.sqrt(3 / 4 * 1 / 3), rel=1e-6)


@pytest.mark.usefixtures("no_java")
def test_rouge_l_equals_the_value_worked_out_by_hand() -> None:
    # Longest common subsequence: the cat sat = 3; precision 3 / 4, recall 3 / 6, beta 1.2.
    precision, recall = 3 / 4, 3 / 6
    by_hand = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    scores = score_captions({"x": ["the cat sat on a mat"]}, {"x": "the cat the sat"})
    assert scores.rouge_l == pytest.approx(by_hand)


@pytest.mark.usefixtures("no_java")
def test_cider_prefers_the_right_image() -> None:
    one = {name: [texts[0]] for name, texts in REFERENCES.items()}
    names = list(IDENTICAL)
    shuffled = {name: IDENTICAL[names[i - 1]] for i, name in enumerate(names)}
    identical = score_captions(one, IDENTICAL).cider
    assert identical == pytest.approx(10)  # ten times a cosine of one, over all lengths of n-grams
    assert score_captions(one, shuffled).cider < 1 < identical


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
    ours = metrics._tokenise("java", {"x": texts, "y": ["One."]})
    theirs = PTBTokenizer().tokenize({"x": [{"caption": text} for text in texts], "y": [{"caption": "One."}]})
    assert ours == theirs


@pytest.mark.skipif(not HAS_JAVA, reason="needs Java")
def test_with_java_meteor_is_there_and_tokens_are_ptb() -> None:
    scores = score_captions(REFERENCES, IDENTICAL)
    assert scores.tokeniser == PTB
    assert scores.meteor == pytest.approx(1, abs=0.01)
    assert scores.bleu == pytest.approx((1, 1, 1, 1))
    assert not scores.notes


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(MetricsError, match=r"x\.jar did not finish within 0\.2 seconds"):
        metrics._java([sys.executable, "-c", "import time; time.sleep(60)", "-jar", "x.jar"], [], 0.2)


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(MetricsError, match=r"x\.jar failed: no memory"):
        metrics._java([sys.executable, "-c", "import sys; sys.exit('no memory')", "-jar", "x.jar"], [], 60)


def test_meteor_that_fails_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise MetricsError("meteor-1.5.jar failed: no memory")

    monkeypatch.setattr("shutil.which", lambda _: "java")
    monkeypatch.setattr(metrics, "_tokenise", lambda _, sentences: metrics._split_simply(sentences))
    monkeypatch.setattr(metrics, "_meteor", fail)
    scores = score_captions(REFERENCES, IDENTICAL)
    assert scores.meteor is None
    assert scores.notes == ("METEOR is left out: meteor-1.5.jar failed: no memory",)


def test_scores_are_named_as_the_field_names_them() -> None:
    scores = Scores((0.4, 0.3, 0.2, 0.1), 0.5, 0.6, 0.7, PTB)
    assert list(scores.named()) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr", "METEOR"]
