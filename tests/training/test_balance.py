"""Balancing words: shares are of captions, shifts bring what is said to what people say, and export applies them."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine import Captioner
from engine.bundle.vocabulary import RULES, Vocabulary
from training.balance import FEW, LEARNED, balance, content_words, main, people_say, said

WORDS = Vocabulary((RULES.end, RULES.pad, RULES.start, RULES.unk, "a", "man", "dog", "runs"))


def test_people_say_a_word_in_a_share_of_their_captions_and_photographs_count_the_same() -> None:
    shares = people_say([["a man", "a dog"], ["A man runs", "man man", "nobody", "a dog runs"]], WORDS)
    found = dict(zip(WORDS.words, shares.tolist(), strict=True))
    assert found["man"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found["runs"] == pytest.approx((0 + 2 / 4) / 2)
    assert found[RULES.end] == 0


def test_content_words_are_the_most_said_without_special_and_function_words() -> None:
    shares = np.array([1, 0.5, 0.5, 0.5, 0.9, 0.3, 0.6, 0.0])
    assert content_words(shares, WORDS, ("a", "unknown"), 5).tolist() == [6, 5]
    assert content_words(shares, WORDS, (), 1).tolist() == [4]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_shifts_bring_what_is_said_to_what_people_say(strength: float) -> None:
    natural = np.array([[0.0, 0.0, 0.0, 0.0, 0.9, 0.4, 0.1, 0.2], [0.0, 0.0, 0.0, 0.0, 0.9, 0.2, 0.2, 0.2]])
    people = np.array([[0.0, 0.0, 0.0, 0.0, 0.9, 0.2, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0, 0.9, 0.2, 0.3, 0.2]])

    def say(shift: np.ndarray) -> np.ndarray:
        shares: np.ndarray = (natural + FEW) * np.exp(shift) - FEW  # a model whose shares follow its shifts
        return shares

    shift = balance(say, people, np.array([5, 6, 7]), [], strength)
    assert shift[5] == pytest.approx(strength * np.log(0.2 / 0.3), abs=0.02)
    assert shift[6] == pytest.approx(strength * np.log(0.25 / 0.15), abs=0.02)
    assert shift[7] == pytest.approx(0, abs=0.01)
    assert not shift[:5].any()
    fully = balance(say, people, np.array([5, 6, 7]), [5], strength)
    np.testing.assert_allclose(say(fully)[0, 5], LEARNED * 0.2, atol=0.01)  # where it is said too often most
    np.testing.assert_array_equal(np.delete(fully, 5), np.delete(shift, 5))


def test_the_command_writes_shifts_that_export_takes(
    tiny_run: Path, tiny_bundle: Path, drawn_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from export.to_onnx import main as export

    common = ["--bundle", str(tiny_bundle), "--data", str(drawn_data), "--images", "40", "--words", "3"]
    assert main([*common, "--strength", "1", "--output", str(tmp_path / "balance.json")]) == 0
    assert f"written to {tmp_path / 'balance.json'}" in capsys.readouterr().out
    record = json.loads((tmp_path / "balance.json").read_text())
    assert record["photographs"] == 40
    assert 0 < len(record["shifts"]) <= 3
    word = min(record["shifts"], key=lambda word: record["shifts"][word])
    record["shifts"] = {word: -2.0}
    (tmp_path / "strong.json").write_text(json.dumps(record))
    output = tmp_path / "bundle"
    command = ["--checkpoint", str(tiny_run), "--output", str(output), "--shifts", str(tmp_path / "strong.json")]
    assert export(command) == 0
    before, after = Captioner(tiny_bundle, provider="cpu"), Captioner(output, provider="cpu")
    features = before.encode(sorted((drawn_data / "images").iterdir())[:20])
    of_word = before.bundle.vocabulary.ids[word]
    none = np.zeros(len(before.bundle.vocabulary))
    assert said(after, features, none)[of_word] < said(before, features, none)[of_word]


@pytest.mark.parametrize("content", ["[]", "{}", '{"shifts": {"a": "much"}}'])
def test_a_file_without_shifts_is_refused(
    tiny_run: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from export.to_onnx import main as export

    (tmp_path / "shifts.json").write_text(content)
    command = [
        "--checkpoint",
        str(tiny_run),
        "--output",
        str(tmp_path / "x"),
        "--shifts",
        str(tmp_path / "shifts.json"),
    ]
    assert export(command) == 1
    assert "shifts" in capsys.readouterr().err


def test_a_word_that_the_bundle_never_writes_is_named(
    tiny_bundle: Path, drawn_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--bundle", str(tiny_bundle), "--data", str(drawn_data), "--output", str(tmp_path / "x.json")]
    assert main([*where, "--fully", "zebra"]) == 0
    assert "note: --fully names zebra, which the bundle never writes" in capsys.readouterr().err
