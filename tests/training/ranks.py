"""Trains in every way by a few batches, alone and in processes: python -m tests.training.ranks FOLDER 1 4.

FOLDER has drawn data. Each way leaves its run in SIZE/NAME there, and every process what it notes in SIZE/RANK.json.
The processes are forks of one that has imported everything, which is most of the time that they would take.
"""

import hashlib
import json
import multiprocessing
import os
import socket
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from training import scst, train
from training.command import read_options
from training.loops.distributed import Processes, processes
from training.loops.loop import Loop, TrainingError
from training.loops.sampler import Sampler
from training.models.checkpoint import CheckpointError
from training.models.decoder import CaptionDecoder
from training.options import ScstOptions, TrainingOptions

SMALL = "--device cpu --threads 1 --max-words 5 --epochs 2 --patience 0 --learning-rate 0.003"
SIZES = (
    "--encoder test_efficientnet --encoder-weights random --min-count 1 --photographs 0 --units 16 --embedding 8 "
    "--bottleneck 8 --logit-hidden 8 --batches 3"
)
REWARDS = "--batches 2 --samples 5 --cross-entropy 0.3"
RUNS = {
    "captions": f"{SIZES} --batch-size 5 --bucket 2 --ema 0.5",  # of 7 captions of validation, 2 are left
    "blocks": f"{SIZES} --batch-size 11 --finetune-encoder 2 --flip --encoder-learning-rate 0.001",
    "photographs": f"{SIZES} --batch-size 11 --finetune-encoder all --epochs 1 --encoder-learning-rate 0.001",
    # 165 sentences, which one process alone learns from in three parts
    "rewards": f"--from captions {REWARDS} --batch-size 33 --bleu 0.5",
    "blocks-rewards": f"--from blocks {REWARDS} --batch-size 7",
    "sampled": f"--from captions {REWARDS} --batch-size 9",
    "again": f"--from captions {REWARDS} --batch-size 9",
}
SAMPLED = ("sampled", "again")
REFUSED = {
    "few-captions": f"{SIZES} --batch-size 1",
    "few-images": f"{SIZES} --batch-size 2 --finetune-encoder 2",
    "few-rewards": f"--from captions {REWARDS} --batch-size 1",
}


class Foretold(Sampler):
    """Says of an image what its features alone decide, the same in any process."""

    def say(self, decoder: CaptionDecoder, features: Tensor, samples: int = 1) -> Tensor:
        if self.greedy:
            return super().say(decoder, features, samples)
        words = self.vocabulary
        said = torch.full((len(features) * samples, self.max_words + 1), words.pad_id)
        said[:, 0] = words.start_id
        allowed = np.setdiff1d(np.arange(len(words)), [words.pad_id, words.unk_id, words.start_id, words.end_id])
        for image, own in enumerate(features.numpy()):
            generator = np.random.default_rng(zlib.crc32(own.tobytes()))
            for row in said[image * samples : (image + 1) * samples]:
                length = int(generator.integers(1, self.max_words))
                row[1 : length + 1] = torch.from_numpy(generator.choice(allowed, length))
                row[length + 1] = words.end_id
        return said


def fingerprint(module: torch.nn.Module) -> str:
    """Tells weights apart by their last bit."""
    weights = b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())
    return hashlib.sha256(weights).hexdigest()


def run(folder: Path, name: str, line: str, together: Processes) -> None:
    """Does what the command does once its processes are together."""
    command: Any = scst if line.startswith("--from") else train
    line = line.replace("--from ", f"--from {folder}/")
    files = f"--data {folder}/data --features {folder}/features --output {folder}/{together.size}/{name}"
    parser = command.command_line()
    given = parser.parse_args(f"{SMALL} {files} {line}".split())
    kind = ScstOptions if command is scst else TrainingOptions
    command.run_together(given, read_options(parser, given, kind), together)


def work(folder: Path, together: Processes) -> None:
    """Runs all, and in several processes what is refused too. What another run begins with is one alone's."""
    torch.manual_seed(together.rank)
    begun = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    together.begin_alike(begun)
    notes = {"begun": fingerprint(begun)}
    original = Loop.train

    def watched(self: Loop[Any], output: Path, *more: Any) -> Iterator[Any]:
        yield from original(self, output, *more)
        notes[output.name] = fingerprint(self.decoder)

    charts = patch("training.reports.charts._png", return_value=b"")  # two thirds of the time
    with patch.object(Loop, "train", watched), charts:
        for name, line in RUNS.items():
            sampler = Sampler if name in SAMPLED else Foretold
            with patch("training.loops.self_critical.Sampler", sampler):
                run(folder, name, line.replace("--from ", "--from 1/"), together)
        for more in ("--epochs 1", "--resume"):
            run(folder, "resumed", f"{RUNS['captions']} {more}", together)
        for name, line in (REFUSED | {"captions": RUNS["captions"]}).items() if together.size > 1 else ():
            try:
                run(folder, name, line.replace("--from ", "--from 1/"), together)
            except (TrainingError, CheckpointError) as error:
                notes[f"{name} refused"] = str(error)
    (folder / str(together.size) / f"{together.rank}.json").write_text(json.dumps(notes))


def one(folder: Path, rank: int, size: int, port: int) -> None:
    """Is one process of some, as torchrun would have started it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    with processes("cpu") as together:
        work(folder, together)


def start(folder: Path, size: int) -> None:
    """Starts processes and waits for all; ends those that hang."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=one, args=(folder, rank, size, port)) for rank in range(size)]
    for process in started:
        process.start()
    for process in started:
        process.join(150)
        process.kill()
        process.join()
    if any(process.exitcode for process in started):
        sys.exit(f"of {size} processes {[process.exitcode for process in started]}")


if __name__ == "__main__":
    for count in map(int, sys.argv[2:]):
        start(Path(sys.argv[1]), count)
