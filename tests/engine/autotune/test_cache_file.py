"""What was measured is kept for exactly the bundle, versions and hardware that it was measured with."""

import json
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import PIL
import pytest

from engine import EngineError
from engine.autotune import machine
from engine.autotune.cache_file import KIND, Measurements, Timing, load, save
from engine.bundle.bundle import Bundle
from engine.cache import forget

MEASURED = Measurements("2026-11-22", (Timing("cpu", "int8", 2, 0.01, 0.005), Timing("cpu", "fp32", 0, 0.02, 0.01)))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's cache: not there yet."""
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    (tmp_path / "manifest.json").write_text("{}")
    nothing: Any = None
    return Bundle(tmp_path, nothing, nothing)


def test_what_was_saved_is_loaded_and_a_later_answer_takes_its_place(folder: Path, bundle: Bundle) -> None:
    assert load(bundle) is None
    path = save(bundle, MEASURED)
    assert path.is_relative_to(folder)
    assert load(bundle) == MEASURED
    later = Measurements("2027-01-01", MEASURED.timings[:1])
    assert save(bundle, later) == path
    assert load(bundle) == later


def test_nothing_is_read_of_the_machine_where_nothing_was_measured(
    folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.autotune.cache_file.fingerprint", lambda bundle: pytest.fail("start-up pays for it"))
    assert load(bundle) is None


def other_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle.path / "manifest.json").write_text("{} ")


def other_onnxruntime(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "9.9")


def other_numpy(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numpy.__version__", "9.9")


def other_pillow(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL, "__version__", "9.9")


def other_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")


def other_cores(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 99)


def other_processor(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle.path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus 2\n\nmodel name\t: Abacus 3\n")
    monkeypatch.setattr(machine, "CPUINFO", bundle.path / "cpuinfo")
    assert machine.processor() == "Abacus 2"


def other_driver(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle.path / "gpus/0").mkdir(parents=True)
    (bundle.path / "gpus/0/information").write_text("Model: \t\t NVIDIA Abacus\nIRQ: 5\n")
    monkeypatch.setattr(machine, "NVIDIA", bundle.path / "gpus")
    assert "NVIDIA Abacus" in machine.gpus()[0]


def other_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = types.SimpleNamespace(vendor="NVIDIA", device_id=0x2330, type=types.SimpleNamespace(name="GPU"))
    offered = types.SimpleNamespace(ep_name="CPUExecutionProvider", device=gpu)
    monkeypatch.setattr("onnxruntime.get_ep_devices", lambda: [offered])
    assert machine.gpus() == ["NVIDIA 0x2330"]


def other_provider(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["AbacusExecutionProvider"])


@pytest.mark.parametrize(
    "change",
    [
        other_bundle,
        other_onnxruntime,
        other_numpy,
        other_pillow,
        other_engine,
        other_cores,
        other_processor,
        other_driver,
        other_gpu,
        other_provider,
    ],
)
def test_any_change_of_bundle_versions_or_hardware_makes_the_answer_stale(
    change: Any, folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(bundle, MEASURED)
    before = machine.fingerprint(bundle)
    assert machine.fingerprint(bundle) == before
    change(bundle, monkeypatch)
    assert machine.fingerprint(bundle) != before
    assert load(bundle) is None
    save(bundle, Measurements("2027-01-01", MEASURED.timings))  # beside the other, not over it
    assert len(list((folder / "tuning").iterdir())) == 2


def damaged(data: dict[str, Any]) -> list[str]:
    first, *_ = data["timings"]
    changes: list[dict[str, Any]] = [
        {"timings": []},
        {"timings": 3},
        {"timings": [3]},
        {"date": None},
        *({"timings": [{**first, name: value}]} for name in ("latency", "throughput") for value in (0, -1, "x", 1e999)),
        {"timings": [{**first, "threads": -1}]},
        {"timings": [{**first, "provider": None}]},
        {"timings": [{**first, "colour": "red"}]},
    ]
    texts = [json.dumps({**data, **change}) for change in changes]
    texts += [json.dumps({name: data[name] for name in data if name != lost}) for lost in ("date", "timings", "tried")]
    return [*texts, "", "null", "[]", "{", json.dumps(data)[:-9], "[" * 100_000]


def test_a_corrupt_file_is_warned_of_and_ignored(folder: Path, bundle: Bundle) -> None:
    path = save(bundle, MEASURED)
    texts = damaged(json.loads(path.read_text()))
    assert len(texts) > 20
    for text in texts:
        path.write_text(text)
        with pytest.warns(RuntimeWarning, match="is ignored: it cannot be read .* tune` writes it again"):
            assert load(bundle) is None
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.warns(RuntimeWarning, match="is ignored"):
        assert load(bundle) is None
    save(bundle, MEASURED)
    assert load(bundle) == MEASURED


def test_readers_see_one_whole_answer_whatever_many_writers_do(folder: Path, bundle: Bundle) -> None:
    answers = [Measurements(f"day {i}", MEASURED.timings * (i + 1)) for i in range(8)]
    save(bundle, answers[0])

    def work(i: int) -> Measurements | None:
        save(bundle, answers[i % 8])
        return load(bundle)

    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("error")
        seen = list(pool.map(work, range(200)))
    assert all(answer in answers for answer in seen)
    assert len(list((folder / "tuning").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_one_sentence_that_says_what_to_do(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"file/tuning/\S+ cannot be written; set CAPTIONING_ENGINE_CACHE to"):
        save(bundle, MEASURED)
    assert load(bundle) is None
    assert forget(KIND, bundle.path) == 0
    monkeypatch.setattr("engine.cache.cache_folder", lambda: None)
    with pytest.raises(EngineError, match="this user has no cache folder"):
        save(bundle, MEASURED)
    assert load(bundle) is None


def test_forgetting_takes_all_answers_of_the_bundle_and_no_others(
    folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(bundle, MEASURED)
    with monkeypatch.context() as patch:
        other_cores(bundle, patch)
        save(bundle, MEASURED)
    other_bundle(bundle, monkeypatch)
    save(bundle, MEASURED)
    (bundle.path / "manifest.json").write_text("{}")
    assert forget(KIND, bundle.path) == 2
    assert load(bundle) is None
    other_bundle(bundle, monkeypatch)
    assert load(bundle) == MEASURED


@pytest.mark.parametrize(
    ("system", "flags", "expected"),
    [
        ("x86_64", "flags\t: sse avx2 avx512_vnni", True),
        ("x86_64", "flags\t: sse avx2 avx_vnni", True),
        ("x86_64", "flags\t: sse avx2", False),
        ("AMD64", "", None),
        ("aarch64", "Features\t: asimd", True),
        ("arm64", "", True),
    ],
)
def test_vnni_is_read_from_the_processors_flags(
    system: str, flags: str, expected: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: system)
    assert machine.has_vnni() is expected


def test_processors_of_arm_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    told = []
    for part in ("0xd0c", "0xd4f", "0xd4f"):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nCPU part\t: {part}\n")
        told.append(machine.instructions())
    assert told[0] != told[1] == told[2]
