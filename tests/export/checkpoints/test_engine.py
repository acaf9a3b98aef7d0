"""An imported captioner in the engine: `export.import_checkpoint` writes a bundle that says what its project would."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.photographs import photographs
from engine import Beam, Captioner, Greedy
from export.import_checkpoint import main
from tests.export.checkpoints.conftest import Read
from tests.export.checkpoints.search import LONGEST, by_prefix, search

FREE: dict[str, Any] = {"no_repeat_ngram_size": 0, "bad_endings": (), "max_length": LONGEST}
KINDS = "yunjey of 2 layers", "sgrvinod", "ruotianluo fc", "ruotianluo att2in2", "keras-merge"


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundle_says_what_the_project_would(
    kind: str, imported: Callable[[str], Read], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = imported(kind)
    source, words = read.case.source, read.imported.words
    optional = {"--encoder-weights": source.encoder_weights, "--encoder": source.encoder}
    command = [
        "--from",
        read.case.layout,
        "--checkpoint",
        str(source.checkpoint),
        "--vocabulary",
        str(source.vocabulary),
    ]
    command += [part for flag, value in optional.items() if value for part in (flag, value)]
    command += ["--size", "x".join(map(str, source.size))] if source.size else []
    assert main([*command, "--output", str(tmp_path / "bundle")]) == 0
    assert "greedy decode, engine on photographs" in capsys.readouterr().out
    captioner = Captioner(tmp_path / "bundle", provider="cpu", precision="fp32")
    assert len(captioner.caption(photographs(2))) == 2
    shape = captioner.bundle.manifest.feature_shape
    random = np.random.default_rng(9)
    common = random.random((3, *(1 for _ in shape[1:]), shape[-1]))  # to all places of an image
    features = (common * 3 - 1 + random.random((3, *shape))).astype(np.float32)
    for beams, way in ((1, Greedy(**FREE)), (3, Beam(beam_size=3, length_penalty=0.0, **FREE))):
        for image, caption in zip(features, captioner.caption_features(features, way), strict=True):
            scored = partial(read.case.next_log_probs, torch.from_numpy(image).double())
            with torch.inference_mode():
                (expected, score), *_ = search(by_prefix(scored), words, beams)
                ids = [captioner.bundle.vocabulary.ids[word] for word in caption.tokens]
                total = sum(float(scored((words.start, *ids[:i]))[token]) for i, token in enumerate(ids))
            assert caption.log_prob == pytest.approx(total, abs=1e-3)
            if beams == 1 or len(expected) < LONGEST:  # the engine prefers a finished sentence to a longer one
                told = tuple(token for token in ids if token != words.end)
                assert told == expected or total >= score - 1e-3, "another sentence must be at least as likely"
