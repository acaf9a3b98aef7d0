"""Laws of training with several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.shapes import draw_data, make_options, make_trainer
from training.checkpoint import load_tensors
from training.distributed import Processes, processes
from training.loop import TrainingError
from training.train import main

CPU = torch.device("cpu")


@pytest.mark.parametrize(("examples", "size"), [(64, 1), (64, 2), (7, 3), (1, 2)])
def test_slices_share_a_batch_evenly_and_leave_nothing_out(examples: int, size: int) -> None:
    slices = [Processes(rank, size, CPU).slice(examples) for rank in range(size)]
    assert [i for start, stop in slices for i in range(start, stop)] == list(range(examples))
    shares = [stop - start for start, stop in slices]
    assert max(shares) - min(shares) <= 1


def test_one_process_alone_needs_no_group() -> None:
    with processes("cpu") as alone:
        assert (alone.rank, alone.size, alone.first) == (0, 1, True)
        assert alone.sum(torch.ones(2)).tolist() == [1, 1]
        alone.wait()
    assert not torch.distributed.is_initialized()


def test_more_processes_than_examples_are_refused() -> None:
    with pytest.raises(TrainingError, match="a batch of 8 cannot be shared by 9 processes"):
        make_trainer(make_options(batch_size=8), Processes(0, 9, CPU))


def test_two_processes_find_the_losses_of_one(tmp_path: Path) -> None:
    data = draw_data(tmp_path / "data")
    options = (
        "--encoder test_vit --encoder-weights random --min-count 1 --epochs 2 --batches 4 --batch-size 9 --units 16"
    )
    fixed = ["--data", str(data), "--device", "cpu", *options.split()]
    assert main([*fixed, "--output", str(tmp_path / "one")]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*launch, "-m", "training.train", *fixed, "--output", str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    assert "2 process(es)" in finished.stdout
    one, two = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two"))
    assert len(one) == len(two) == 2
    for single, shared in zip(one, two, strict=True):
        for name in single.keys() - {"seconds"}:
            assert shared[name] == pytest.approx(single[name], abs=1e-5), name
    these, those = (load_tensors(tmp_path / name / "last.safetensors")[0] for name in ("one", "two"))
    for name in these:
        torch.testing.assert_close(those[name], these[name], atol=1e-4, rtol=1e-3, msg=name)
