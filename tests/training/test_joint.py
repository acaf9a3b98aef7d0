"""Training a joint space by its command: it learns, an interruption changes no weight; and exporting what it made."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from engine.bundle.bundle import VECTOR_GRAPHS, Bundle
from engine.bundle.vocabulary import pad_matrix
from engine.runtime.vectors import Vectors
from export.additions import add_variants, save_manifest
from export.to_onnx import main as export
from export.variants import VariantOptions
from training.files import write_json
from training.joint import main
from training.loops.contrastive import JointTrainer
from training.models.joint import load_joint

SIZES = "--size 16 --embedding 12 --hidden 8"
SMALL = f"{SIZES} --batch-size 48 --paraphrases 8 --jitter 0 --epochs 3 --warmup 0 --learning-rate 0.02"
SAID = ["a red circle", "red circle", "the red circle on the paper"], ["a blue square", "there is a blue square"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentences") / "said.jsonl"
    path.write_text("\n".join(json.dumps({"image": f"{i}.jpg", "captions": said}) for i, said in enumerate(SAID)))
    return path


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def command(tiny_bundle: Path, drawn_data: Path, sentences: Path, features: Path) -> list[str]:
    data = ["--bundle", str(tiny_bundle), "--data", str(drawn_data), "--sentences", str(sentences)]
    return [*data, "--features", str(features), "--threads", "1", *SMALL.split()]


@pytest.fixture(scope="module")
def run(command: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint") / "run"
    assert main([*command, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


# --- training


def test_photographs_are_found_by_their_sentences_far_better_than_by_chance(run: Path) -> None:
    history = json.loads((run / "history.json").read_text())
    best = max(epoch["recall_1"] + epoch["recall_5"] + epoch["recall_10"] for epoch in history)
    # 24 photographs of 12 kinds: of a kind, either may be the first
    assert history[-1]["recall_5"] > 0.6, "by chance 5 of 24"
    assert history[-1]["found"]["data"]["images"]["at_5"] == pytest.approx(history[-1]["recall_5"])
    kept = load_joint(run).epoch
    assert kept["recall_1"] + kept["recall_5"] + kept["recall_10"] == best, "the best epoch is kept"
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_run_goes_on_to_the_same_weights(
    command: Sequence[str],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    take_step, there = JointTrainer.take_step, tmp_path / "run"

    def interrupted(trainer: JointTrainer, batch: object, step: int) -> object:
        if step == trainer.batches + 1:  # in the second epoch
            raise KeyboardInterrupt
        return take_step(trainer, batch, step)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(JointTrainer, "take_step", interrupted)
        assert main([*command, "--output", str(there)]) == 130
    assert "and --resume" in capsys.readouterr().err
    assert main([*command, "--output", str(there)]) == 1, "without --resume a run is not touched"
    assert main([*command, "--output", str(there), "--resume"]) == 0
    assert len(json.loads((there / "history.json").read_text())) == 3
    for mine, whole in zip(*(load_joint(each).space.state_dict().values() for each in (there, run)), strict=True):
        torch.testing.assert_close(mine, whole, rtol=0, atol=0)


def test_another_run_is_not_resumed(command: Sequence[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--output", str(run), "--resume", "--size", "17"]) == 1
    assert "size was 16 and is 17" in capsys.readouterr().err


def test_unusable_options_are_one_sentence(command: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, named in (("--batch-size", "--batch-size must be at least 2"), ("--size", "--size must be at least 1")):
        with pytest.raises(SystemExit) as caught:
            main([*command, "--output", "nowhere", wrong, "0"])
        assert caught.value.code == 2
        assert named in capsys.readouterr().err


def test_features_of_the_run_that_the_bundle_came_from_are_used(
    command: Sequence[str], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.models.bundle_encoder.BundleEncoder.forward", lambda *_: pytest.fail("it ran"))
    folder = tiny_run.parent / "features"  # where training.train put them: of the plain photographs
    options = [*command, "--features", str(folder), "--no-flip", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert main(options) == 0


# --- export


def test_exported_vectors_are_those_of_pytorch_whatever_the_padding(run: Path, bundle: Path) -> None:
    assert export(["--output", str(bundle), "--joint", str(run)]) == 0
    opened, space = Bundle.load(bundle), load_joint(run).space
    assert opened.manifest.vector_size == 16
    features = np.random.default_rng(0).random((5, *opened.manifest.feature_shape), dtype=np.float32)
    texts, words = ["a red circle", "zebra", "", "there is a yellow triangle on the paper"], opened.vocabulary
    sentences = [words.encode(text) for text in texts]
    tokens, lengths = pad_matrix(sentences, words.pad_id), np.array([len(each) for each in sentences])
    with torch.no_grad():
        expected = space.texts(torch.from_numpy(tokens), torch.from_numpy(lengths)).numpy()
        images = space.images(torch.from_numpy(features)).numpy()
    vectors = Vectors(opened, threads=1)
    rounded = 1e-2  # the weights are rounded
    np.testing.assert_allclose(vectors.of_texts(texts), expected, atol=rounded)
    np.testing.assert_allclose(vectors.of_features(features), images, atol=rounded)
    session = onnxruntime.InferenceSession(str(bundle / "text_vector.onnx"), providers=["CPUExecutionProvider"])
    garbage = np.where(np.arange(tokens.shape[1]) < lengths[:, None], tokens, 5)
    padded = np.concatenate([garbage, np.full((4, 9), 6)], axis=1)
    same = session.run(["vectors"], {"token_ids": padded, "lengths": lengths})[0]
    np.testing.assert_allclose(same, vectors.of_texts(texts), atol=1e-6)


def test_a_bundle_with_vectors_captions_as_before_and_says_what_they_are_worth(
    run: Path, bundle: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(["--output", str(bundle), "--joint", str(run)]) == 0
    assert "text_vector, random texts" in capsys.readouterr().out
    before, after = Bundle.load(tiny_bundle), Bundle.load(bundle)
    made = {graph.graph for graph in after.manifest.graphs} - {graph.graph for graph in before.manifest.graphs}
    assert made == set(VECTOR_GRAPHS)
    for path in tiny_bundle.iterdir():
        if path.name != "manifest.json":
            assert (bundle / path.name).read_bytes() == path.read_bytes()
    described = after.manifest.provenance["vectors"]
    assert described["recall"]["data"] == load_joint(run).epoch["found"]["data"]
    assert "validation list" in described["recall"]["measured"]
    assert after.manifest.parity["text_vector, random texts"]["max_error"] < 1e-5
    assert after.manifest.quality == before.manifest.quality
    assert export(["--output", str(bundle), "--joint", str(run)]) == 0, "again, in place of those"
    assert Bundle.load(bundle).manifest == after.manifest


def test_other_precisions_leave_vectors_as_they_are(run: Path, bundle: Path) -> None:
    assert export(["--output", str(bundle), "--joint", str(run)]) == 0
    add_variants(bundle, VariantOptions(precisions=("fp16",)))
    opened = Bundle.load(bundle)
    assert {graph.precision for graph in opened.manifest.graphs if graph.graph in VECTOR_GRAPHS} == {"fp32"}
    assert opened.graph("text_vector", "fp16") == opened.graph("text_vector")


def test_a_space_for_other_features_or_words_is_refused(
    run: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "run"))
    words = json.loads((other / "vocabulary.json").read_text())
    write_json(other / "vocabulary.json", [f"{word}x" if word == "red" else word for word in words])
    manifest = (bundle / "manifest.json").read_bytes()
    assert export(["--output", str(bundle), "--joint", str(other)]) == 1
    assert "for other words than the bundle's: train it on this bundle" in capsys.readouterr().err
    assert (bundle / "manifest.json").read_bytes() == manifest
    opened = Bundle.load(bundle).manifest
    encoder = opened.provenance["encoder"] | {"fingerprint": "0" * 64}
    save_manifest(bundle, replace(opened, provenance=opened.provenance | {"encoder": encoder}))
    assert export(["--output", str(bundle), "--joint", str(run)]) == 1
    assert "for the features of another encoder" in capsys.readouterr().err


def test_vectors_are_added_after_the_export_of_a_run(
    run: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        export(["--checkpoint", str(tiny_run), "--output", str(tmp_path / "bundle"), "--joint", str(run)])
    assert "--joint adds vectors to a bundle that exists" in capsys.readouterr().err


def test_a_bundle_with_grids_of_features_and_words_of_its_own_gets_vectors_too(
    attention_bundle: Path, drawn_data: Path, sentences: Path, tmp_path: Path
) -> None:
    bundle, folder = Path(shutil.copytree(attention_bundle, tmp_path / "bundle")), tmp_path / "run"
    data = ["--bundle", str(bundle), "--data", str(drawn_data), "--sentences", str(sentences), "--no-flip"]
    assert main([*data, "--output", str(folder), "--threads", "1", *SMALL.split(), "--epochs", "1"]) == 0
    assert export(["--output", str(bundle), "--joint", str(folder)]) == 0
    opened, space = Bundle.load(bundle), load_joint(folder).space
    grids = np.random.default_rng(0).random((3, *opened.manifest.feature_shape), dtype=np.float32)
    with torch.no_grad():
        expected = space.images(torch.from_numpy(grids)).numpy()
    np.testing.assert_allclose(Vectors(opened, threads=1).of_features(grids), expected, atol=1e-2)
