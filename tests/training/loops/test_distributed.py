"""Laws of training with several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.ranks import REFUSED, RUNS, SAMPLED
from tests.training.shapes import draw_data
from training.loops.distributed import processes
from training.models.checkpoint import load_tensors

CPU, ROOT = torch.device("cpu"), Path(__file__).parents[3]
SIZE = 4
ALIKE = sorted(RUNS.keys() - set(SAMPLED))


def test_one_process_alone_needs_no_group() -> None:
    with processes("cpu") as alone:
        assert (alone.rank, alone.size, alone.first) == (0, 1, True)
        assert alone.sum(torch.ones(2)).tolist() == [1, 1]
        alone.wait()
    assert not torch.distributed.is_initialized()


def test_torchrun_starts_processes_that_train_together(tmp_path: Path) -> None:
    data = draw_data(tmp_path / "data")
    sizes = "--encoder test_vit --encoder-weights random --min-count 1 --epochs 1 --batches 4 --batch-size 9 --units 16"
    options = ["--data", str(data), "--output", str(tmp_path / "run"), "--device", "cpu", *sizes.split()]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*launch, "-m", "training.train", *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    assert "2 process(es)" in finished.stdout
    assert len(json.loads((tmp_path / "run" / "history.json").read_text())) == 1


# Every way to train, alone and in four processes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all runs, by the number of their processes; four of them have no image each of validation."""
    folder = tmp_path_factory.mktemp("ranks")
    data = draw_data(folder / "data", train=13, validation=3)
    first, *lines = (data / "captions.csv").read_text().splitlines()
    kept = [line for index, line in enumerate(lines) if index % 4 != 1]  # images with two and three captions
    (data / "captions.csv").write_text("\n".join([first, *kept]) + "\n")
    finished = subprocess.run(
        [sys.executable, "-m", "tests.training.ranks", str(folder), "1", str(SIZE)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert finished.returncode == 0, finished.stderr
    return folder


def noted(folder: Path, size: int) -> list[dict[str, str]]:
    return [json.loads((folder / str(size) / f"{rank}.json").read_text()) for rank in range(size)]


@pytest.mark.parametrize("name", ALIKE)
def test_processes_learn_what_one_alone_learns(trained: Path, name: str) -> None:
    alone, together = (load_tensors(trained / str(n) / name / "last.safetensors")[0] for n in (1, SIZE))
    assert together.keys() == alone.keys()
    for key in alone:
        torch.testing.assert_close(together[key], alone[key], atol=5e-5, rtol=1e-5, msg=key)
    alone_noted, noted_together = (
        json.loads((trained / str(n) / name / "history.json").read_text()) for n in (1, SIZE)
    )
    for single, shared in zip(alone_noted, noted_together, strict=True):
        for key in single.keys() - {"seconds"}:
            assert shared[key] == pytest.approx(single[key], abs=1e-5), key


def test_all_processes_end_with_the_same_weights(trained: Path) -> None:
    first, *others = noted(trained, SIZE)
    refused = {f"{name} refused" for name in (*REFUSED, "captions")}
    assert first.keys() == RUNS.keys() | refused | {"resumed", "begun"}
    assert all(other == first for other in others)


def test_all_processes_begin_with_the_weights_of_the_first(trained: Path) -> None:
    (first,) = noted(trained, 1)
    assert all(notes["begun"] == first["begun"] for notes in noted(trained, SIZE))


@pytest.mark.parametrize("size", [1, SIZE])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(trained: Path, size: int) -> None:
    for notes in noted(trained, size):
        assert notes["resumed"] == notes["captions"]


@pytest.mark.parametrize("size", [1, SIZE])
def test_as_many_processes_draw_the_same_sentences_again(trained: Path, size: int) -> None:
    """Other numbers of processes draw others, so that runs of rewards differ by luck, as with another seed."""
    first = noted(trained, size)[0]
    assert first["sampled"] == first["again"]
    assert size == 1 or first["sampled"] != noted(trained, 1)[0]["sampled"]


@pytest.mark.parametrize("name", REFUSED)
def test_batches_that_cannot_be_shared_are_refused_before_the_run_begins(trained: Path, name: str) -> None:
    assert not (trained / str(SIZE) / name).exists()
    for notes in noted(trained, SIZE):
        assert (
            f"is too small for {SIZE} processes: raise batch_size or start fewer processes" in notes[f"{name} refused"]
        )


def test_a_folder_that_is_taken_is_refused_by_every_process(trained: Path) -> None:
    """Where only the first did so, the others would say that the connection broke."""
    for notes in noted(trained, SIZE):
        assert "is not empty: continue its run with --resume" in notes["captions refused"]
