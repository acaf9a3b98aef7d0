"""`tune`: a table, what "auto" takes from then on, and nothing half saved. Once it really measures."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import Captioner, EngineError, ProviderError, RuntimeOptions
from engine.autotune import cache_file
from engine.autotune.cache_file import Measurements, Timing
from engine.autotune.measure import NO_TIME, Budget, Entry, Tuning, Way
from engine.autotune.select import Request, select
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Variant
from engine.cli import main
from tests.engine.autotune.fakes import FIRST, INT8, ONE, OPENVINO, Fake, a_bundle, race


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Makes `tune` find four ways without measuring; returns what it was called with."""
    asked: list[Any] = []

    def found(bundle: Bundle, candidates: Sequence[Way], budget: Budget) -> Tuning:
        asked.append((list(candidates), budget))
        fakes = {FIRST: Fake(), ONE: Fake(0.01, 0.008), INT8: Fake(0.02, 0.005), OPENVINO: Fake()}
        fakes[OPENVINO].fault = ProviderError("it has no device")
        return race(fakes, bundle=a_bundle(int8=Variant(0.4)))[0]

    monkeypatch.setattr("engine.commands.tune.tune", found)
    return asked


def test_the_command_prints_a_table_with_the_best_marked_and_keeps_the_answer(
    tiny_bundle: Path, cache: Path, made_up: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--bundle", str(tiny_bundle), "--seconds", "30"]) == 0
    out, err = capsys.readouterr()
    head, *rows, units, last = out.splitlines()
    assert " ".join(head.split()) == "provider precision threads one image speed-up a batch of 32 speed-up"
    assert [" ".join(row.split()) for row in rows] == [
        "cpu int8 default 20.0 ms 1.00x 5.0 ms 2.00x not for auto: its CIDEr is 0.100 below fp32's",
        "cpu fp32 1 10.0 ms 2.00x 8.0 ms 1.25x <- auto for one image and batches",
        "cpu fp32 default 20.0 ms 1.00x 10.0 ms 1.00x",
        "openvino int8 default left out: it has no device",
    ]
    (file,) = (cache / "tuning").iterdir()
    assert units.endswith("speed-up over cpu fp32.")
    assert last.endswith(f"seconds and saved in {file}")
    assert err == ""
    assert made_up[0][1].seconds == 30
    kept = cache_file.load(Bundle.load(tiny_bundle))
    assert kept is not None
    assert {(t.precision, t.threads) for t in kept.timings} == {("fp32", 0), ("fp32", 1), ("int8", 0)}
    assert Captioner(tiny_bundle).choice.runtime.threads == 1
    assert main(["info", "--bundle", str(tiny_bundle)]) == 0
    told = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert told["threads"] == "1"
    assert told["chosen"] == f"tuned on {kept.date} for many images at once"


def test_json_is_one_object_with_every_way_and_the_two_answers(
    tiny_bundle: Path, cache: Path, made_up: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--bundle", str(tiny_bundle), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["ways"]) == 4
    assert facts["batches"] == facts["one_image"] == facts["ways"][1]
    assert facts["ways"][1]["threads"] == 1
    assert facts["ways"][1]["seconds_an_image"].keys() == {
        f"{decoding}, {images} at once" for decoding in ("greedy", "beam") for images in (1, 32)
    }
    assert facts["ways"][2]["not_for_auto"] == "its CIDEr is 0.100 below fp32's"
    assert facts["ways"][3]["left_out"] == "it has no device"
    assert Path(facts["kept"]).is_relative_to(cache)


def test_clear_forgets_and_measures_nothing(
    tiny_bundle: Path, cache: Path, made_up: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tune", "--bundle", str(tiny_bundle)]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--clear"]) == 0
    assert main([*command, "--clear"]) == 0
    assert capsys.readouterr().out == "saved results deleted: 1\nsaved results deleted: 0\n"
    assert len(made_up) == 1
    assert Captioner(tiny_bundle).choice.why == "default order"


def test_an_interrupt_leaves_the_answer_there_was(
    tiny_bundle: Path, cache: Path, made_up: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command = ["tune", "--bundle", str(tiny_bundle)]
    assert main(command) == 0
    (file,) = (cache / "tuning").iterdir()
    before = file.read_bytes()

    def interrupt(bundle: Bundle, candidates: Sequence[Way], budget: Budget) -> Tuning:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.commands.tune.tune", interrupt)
    assert main(command) == 130
    assert capsys.readouterr().err == "interrupted: nothing was saved; earlier results are unchanged\n"
    assert file.read_bytes() == before
    assert list((cache / "tuning").iterdir()) == [file]


def test_a_folder_that_cannot_be_written_is_told_after_the_table(
    tiny_bundle: Path, cache: Path, made_up: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cache.touch()  # a file, in which no folder can be made
    assert main(["tune", "--bundle", str(tiny_bundle)]) == 2
    out, err = capsys.readouterr()
    assert "<- auto for" in out
    assert err.startswith("error: the results cannot be saved: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--provider", "cpu,abacus"], "provider 'abacus' is unknown"),
        (["--bundle", "nowhere"], "nowhere is not a bundle"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], sentence: str, cache: Path, made_up: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert sentence in err
    assert not made_up


def test_each_way_is_made_as_it_says(tiny_bundle: Path, cache: Path, made_up: list[Any]) -> None:
    made: list[Any] = []
    factory: Callable[..., Any] = lambda bundle, **options: made.append((bundle, options))  # noqa: E731
    assert main(["tune", "--bundle", str(tiny_bundle)], factory) == 0
    (_, budget) = made_up[0]
    budget.start(Way("openvino", "int8", 3))
    options = {"provider": "openvino", "precision": "int8", "runtime": RuntimeOptions(threads=3)}
    assert made == [(tiny_bundle, options)]


def test_a_real_tuning_measures_the_tiny_bundle_and_auto_takes_its_answer(
    tiny_bundle: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--bundle", str(tiny_bundle), "--provider", "cpu", "--seconds", "4", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    bundle = Bundle.load(tiny_bundle)
    for images, batch_size in (("one_image", 1), ("batches", 32)):
        choice = select(bundle, Request(batch_size=batch_size))[0]
        assert (choice.provider, choice.precision) == ("cpu", "fp32")
        assert choice.runtime.threads == facts[images]["threads"]
        assert choice.why.startswith("tuned on ")


def test_an_engine_error_on_the_way_leaves_nothing(tiny_bundle: Path, cache: Path) -> None:
    def missing(*_: object, **__: object) -> Any:
        raise EngineError("no runtime")

    assert main(["tune", "--bundle", str(tiny_bundle)], missing) == 2
    assert not cache.exists()


def test_half_an_answer_is_not_kept_and_another_provider_is_added(
    tiny_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, command = Bundle.load(tiny_bundle), ["tune", "--bundle", str(tiny_bundle)]
    timings = Timing("cuda", "fp32", 0, 1.0, 1.0), Timing("cpu", "fp32", 0, 9.0, 9.0)
    cache_file.save(bundle, Measurements("2026-01-01", timings, ("cpu", "cuda")))
    first = Entry(FIRST, samples={(images, i): [2.0] for images in (1, 8) for i in range(2)})
    late = Entry(Way("cpu", "int8", 0), error=NO_TIME)
    monkeypatch.setattr("engine.commands.tune.tune", lambda *_: Tuning(entries=(first, late), images=8, seconds=1))
    assert main(command) == 2
    assert "no time was left for cpu int8" in capsys.readouterr().err
    late.way = Way("cpu", "int8", 1)  # a variation of threads may be left out
    assert main(command) == 0
    kept = cache_file.load(bundle)
    assert kept is not None
    assert {(timing.provider, timing.latency) for timing in kept.timings} == {("cuda", 1.0), ("cpu", 2.0)}
    assert kept.tried == ("cpu", "cuda")
