"""The law of endings: each command that fails or is stopped says so in one sentence, and its status tells which."""

import pytest

from training.outcome import outcome


def test_an_error_that_was_foreseen_is_a_sentence_and_any_other_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> None:
        raise error

    assert outcome(lambda: None) == 0
    assert outcome(lambda: fail(KeyError("word")), KeyError) == 1
    assert outcome(lambda: fail(PermissionError("no entry"))) == 1
    assert outcome(lambda: fail(FileNotFoundError(2, "No such file or directory", "x"))) == 1
    assert capsys.readouterr().err == "error: 'word'\nerror: no entry\nerror: x: No such file or directory\n"
    with pytest.raises(ValueError, match="unforeseen"):
        outcome(lambda: fail(ValueError("unforeseen")), KeyError)


def test_a_command_that_is_stopped_says_what_it_leaves_or_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    assert outcome(stop) == outcome(stop, interrupted=lambda: "run it again") == 130
    assert capsys.readouterr().err == "\ninterrupted: nothing was written\n\ninterrupted: run it again\n"
