"""Decoding on a CUDA device: equal to decoding anywhere else, by runs that CUDA graphs can replay."""

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engine import Beam, Captioner, Greedy, Sample
from engine.bundle.bundle import Bundle
from engine.decoding.constraints import TokenConstraints
from engine.decoding.decode import decode
from engine.runtime.cuda import device
from engine.runtime.cuda.buckets import BUCKETS, bucket
from engine.runtime.cuda.device import MOST_GRAPHS, Device, GraphIds
from engine.runtime.cuda.encoder import DeviceEncoder
from engine.runtime.cuda.steps import DeviceDecoder
from engine.runtime.graphs import Graphs
from engine.runtime.providers import CAPTURED
from tests.engine.runtime.cuda.fake_cuda import FakeCuda, FakeSession

DECODINGS = [
    Greedy(),
    Greedy(min_length=4, prefix="a"),
    Beam(beam_size=1),
    Beam(beam_size=3, num_hypotheses=3),
    Beam(beam_size=5, no_repeat_ngram_size=2),
    Greedy(no_repeat_ngram_size=3, bad_endings=("paper", "red"), max_length=6),
    Beam(beam_size=3, no_repeat_ngram_size=3, bad_endings=("paper", "red")),
    Sample(num_samples=2, seed=1, bad_endings=("paper", "red")),
    Sample(num_samples=3, seed=7),
    Sample(num_samples=2, seed=2, temperature=0.7, min_length=3),
    Sample(num_samples=2, seed=1, top_k=4, no_repeat_ngram_size=1),
]


class Machine:
    """A fake CUDA machine that holds a bundle."""

    def __init__(self, bundle: Bundle, *, graphs: bool) -> None:
        self.cuda = FakeCuda(device_id=2)
        self.bundle = bundle
        self.graphs = graphs
        self.sessions: dict[str, FakeSession] = {}
        manifest = bundle.manifest
        fake = Device(self.session, "cuda", 2, cuda_graphs=graphs)
        image = manifest.image.height, manifest.image.width, 3
        self.encoder = DeviceEncoder(fake, image, manifest.feature_shape)
        self.decoder = DeviceDecoder(fake, manifest.state, manifest.context, manifest.vocabulary_size)

    def session(self, name: str) -> FakeSession:
        if name not in self.sessions:
            model = str(self.bundle.path / self.bundle.graph(name).file)
            real = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
            self.sessions[name] = FakeSession(self.cuda, real, graphs=self.graphs and name in CAPTURED)
        return self.sessions[name]


@pytest.fixture(scope="module", params=["tiny", "attention"])
def folder(request: pytest.FixtureRequest) -> Path:
    """Bundles of an LSTM, and of a decoder whose steps read context besides."""
    bundle: Path = request.getfixturevalue(f"{request.param}_bundle")
    return bundle


@pytest.fixture(params=[False, True], ids=["plain", "cuda graphs"])
def machine(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(Bundle.load(folder), graphs=request.param)
    monkeypatch.setattr(device, "onnxruntime", lambda: made.cuda)
    yield made
    gc.collect()


@pytest.fixture(scope="module")
def graphs(folder: Path) -> Graphs:
    """The same bundle on the CPU, its sessions open."""
    graphs = Captioner(folder, provider="cpu", precision="fp32", batch_size=8).model.graphs
    for name in ("decoder_init", "search_step"):
        graphs.session(name)
    return graphs


def features(graphs: Graphs, images: int, seed: int = 0) -> np.ndarray:
    shape = images, *graphs.bundle.manifest.feature_shape
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert [a.text for a in our.alternatives] == [a.text for a in their.alternatives]
        for a, b in zip(our.alternatives, their.alternatives, strict=True):
            np.testing.assert_allclose(a.token_log_probs, b.token_log_probs, rtol=0, atol=1e-5)


def decoded(model: Any, decoding: Any, graphs: Graphs) -> list[Any]:
    vocabulary, defaults = graphs.bundle.vocabulary, graphs.bundle.manifest.defaults
    return decode(model, decoding, TokenConstraints.of(decoding, vocabulary, defaults), vocabulary, defaults)


# --- buckets


def test_a_bucket_is_the_least_that_holds_the_rows() -> None:
    assert [bucket(rows) for rows in (1, 2, 3, 5, 9, 33, 97, 512)] == [1, 2, 4, 8, 16, 48, 128, 512]
    assert [bucket(rows) for rows in (513, 1024, 1025)] == [1024, 1024, 1536]
    assert all(bucket(size) == size for size in BUCKETS)


# --- decoding


@pytest.mark.parametrize("decoding", DECODINGS, ids=repr)
def test_a_decode_on_the_device_is_the_decode_on_the_host(machine: Machine, graphs: Graphs, decoding: Any) -> None:
    given = features(graphs, 5)
    expected = decoded(graphs.start(given), decoding, graphs)
    for _ in range(2):  # the second time CUDA graphs are replayed
        same(decoded(machine.decoder.start(given), decoding, graphs), expected)
    if machine.graphs:
        assert any(run.startswith("replay") for run in machine.cuda.runs)


def test_each_row_draws_at_its_own_temperature(machine: Machine, graphs: Graphs) -> None:
    given, rows = features(graphs, 5), np.arange(5)
    bias, uniforms = np.zeros((1, graphs.bundle.manifest.vocabulary_size), np.float32), np.full(5, 0.7, np.float32)
    for temperatures in (np.array([0.1, 3.0, 1.0, 1e-300, 2.0]), np.full(5, 0.5)):
        ids, log_probs = machine.decoder.start(given).draw(rows, rows, bias, temperatures, uniforms)
        expected_ids, expected = graphs.start(given).draw(rows, rows, bias, temperatures, uniforms)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(log_probs, expected, rtol=0, atol=1e-5)


def test_images_that_join_a_running_decode_change_nothing(machine: Machine, graphs: Graphs) -> None:
    given = features(graphs, 6)
    bias = np.zeros((1, graphs.bundle.manifest.vocabulary_size), np.float32)
    ours, host = machine.decoder.start_empty(24), graphs.start_empty(24)
    answers = []
    for model in (ours, host):
        tokens, parents, found = np.empty(0, np.int64), np.empty(0, np.int64), []
        for i in range(0, 6, 2):
            places = model.admit([given[i : i + 2]])
            tokens = np.concatenate((tokens, np.full(2, graphs.bundle.vocabulary.start_id)))
            ids, log_probs = model.step(tokens, np.concatenate((parents, places)), bias, 3)
            tokens, parents = ids[:, 0].copy(), np.arange(len(ids))
            found.append((ids.copy(), log_probs.copy()))
        answers.append(found)
    for (ids, log_probs), (expected_ids, expected) in zip(*answers, strict=True):
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(log_probs, expected, rtol=0, atol=1e-5)


def test_there_is_room_for_images_that_are_all_admitted_alone(machine: Machine, graphs: Graphs) -> None:
    bias = np.zeros((1, graphs.bundle.manifest.vocabulary_size), np.float32)
    for half in (1, 2, 16):
        model = machine.decoder.start_empty(2 * half)
        model.step(np.zeros(half, np.int64), model.admit([features(graphs, half)]), bias, 1)
        for _ in range(half):
            model.admit([features(graphs, 1)])


def test_the_rows_that_fill_a_bucket_change_nothing(machine: Machine, graphs: Graphs) -> None:
    given = features(graphs, 7)
    bias = np.zeros((1, graphs.bundle.manifest.vocabulary_size), np.float32)
    tokens, parents = np.full(7, graphs.bundle.vocabulary.start_id), np.arange(7)
    ours, host = machine.decoder.start(given), graphs.start(given)
    for chosen in ([0, 1, 2, 3, 4, 5, 6], [6, 6, 0, 2, 5], [4, 3, 1], [2] * 9):
        parents = np.array(chosen)
        (ids, log_probs), (host_ids, host_log_probs) = (
            model.step(tokens[parents] if len(tokens) > max(chosen) else parents, parents, bias, 4)
            for model in (ours, host)
        )
        assert ids.shape == (len(chosen), 4)
        assert ids.dtype == np.int64
        np.testing.assert_array_equal(ids, host_ids)
        np.testing.assert_allclose(log_probs, host_log_probs, rtol=0, atol=1e-5)
        tokens = ids[:, 0].copy()


def test_a_replay_never_answers_with_the_k_of_another_capture(machine: Machine, graphs: Graphs) -> None:
    given = features(graphs, 2)
    bias = np.zeros((1, graphs.bundle.manifest.vocabulary_size), np.float32)
    rows = np.arange(2)
    for k in (3, 5, 3, 1, 5):
        ids, _ = machine.decoder.start(given).step(rows, rows, bias, k)
        np.testing.assert_array_equal(ids, graphs.start(given).step(rows, rows, bias, k)[0])


def test_a_mask_changed_between_decodes_or_steps_is_the_one_that_holds(machine: Machine, graphs: Graphs) -> None:
    given, rows = features(graphs, 2), np.arange(2)
    bias = np.zeros((1, graphs.bundle.manifest.vocabulary_size), np.float32)
    first = machine.decoder.start(given).step(rows, rows, bias, 1)[0]
    forbidden = bias.copy()
    forbidden[0, first[0, 0]] = -np.inf
    assert machine.decoder.start(given).step(rows, rows, forbidden, 1)[0][0, 0] != first[0, 0]
    np.testing.assert_array_equal(machine.decoder.start(given).step(rows, rows, bias, 1)[0], first)


def test_a_step_copies_its_ids_up_once_and_its_best_down_once(machine: Machine, graphs: Graphs) -> None:
    model, rows = machine.decoder.start(features(graphs, 5)), np.arange(5)
    bias = np.zeros((1, graphs.bundle.manifest.vocabulary_size), np.float32)
    for _ in range(2):
        model.step(rows, rows, bias, 2)
    machine.cuda.uploads.clear()
    machine.cuda.downloads.clear()
    model.step(rows, rows, bias, 2)
    assert len(machine.cuda.uploads) == len(machine.cuda.downloads) == 1
    assert sum(machine.cuda.uploads + machine.cuda.downloads) < 1024


def test_decodes_of_many_sizes_bind_each_kind_once(machine: Machine, graphs: Graphs) -> None:
    def decode_all() -> tuple[int, int]:
        for images in (8, 1, 3, 4, 2, 7, 5):
            decoded(machine.decoder.start(features(graphs, images)), Greedy(), graphs)
        return len(machine.cuda.memory), sum(run.startswith("capture") for run in machine.cuda.runs)

    decode_all()
    first = decode_all()
    assert decode_all() == first


def test_two_decodes_at_once_share_nothing(machine: Machine, graphs: Graphs) -> None:
    bias = np.zeros((1, graphs.bundle.manifest.vocabulary_size), np.float32)
    given = [features(graphs, 2, seed) for seed in (0, 1)]
    models, references = ([begin(part) for part in given] for begin in (machine.decoder.start, graphs.start))
    last = [np.full(2, graphs.bundle.vocabulary.start_id)] * 2
    for _ in range(4):
        for i in (0, 1):
            ours = models[i].step(last[i], np.arange(2), bias, 2)[0].copy()
            np.testing.assert_array_equal(ours, references[i].step(last[i], np.arange(2), bias, 2)[0])
            last[i] = ours[:, 0].copy()


def test_beyond_the_most_graphs_runs_are_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "onnxruntime", FakeCuda)
    ids = GraphIds()
    numbers = [ids.options(captured).get_run_config_entry("gpu_graph_id") for captured in (0, 1, MOST_GRAPHS, 2)]
    assert numbers == ["1", "2", "-1", "3"]


# --- encoding


def pixels(bundle: Bundle, images: int, seed: int = 0) -> np.ndarray:
    shape = images, bundle.manifest.image.height, bundle.manifest.image.width, 3
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("images", [0, 1, 3, 8])
def test_features_of_the_device_are_those_of_the_host(machine: Machine, graphs: Graphs, images: int) -> None:
    given = pixels(graphs.bundle, images)
    expected = graphs.encoder.encode(given)
    for _ in range(2):
        encoded = machine.encoder.encode(given)
        assert (len(encoded), encoded.shape) == (images, expected.shape)
        np.testing.assert_allclose(np.asarray(encoded), expected, rtol=0, atol=1e-5)


def test_slices_of_features_are_decoded_alone(machine: Machine, graphs: Graphs) -> None:
    given = pixels(graphs.bundle, 6)
    expected = decoded(graphs.start(graphs.encoder.encode(given)[2:5]), Greedy(), graphs)
    part = machine.encoder.encode(given)[2:5]
    gc.collect()
    machine.encoder.encode(pixels(graphs.bundle, 6, seed=1))  # must not take the memory of the slice
    assert part.shape[0] == 3
    same(decoded(machine.decoder.start(part), Greedy(), graphs), expected)
    np.testing.assert_array_equal(np.asarray(part[1:]), np.asarray(part)[1:])
    with pytest.raises(IndexError, match="steps of 1"):
        part[::2]


def test_features_that_lie_side_by_side_join_a_decode_in_one_run(machine: Machine, graphs: Graphs) -> None:
    given = [pixels(graphs.bundle, 6, seed) for seed in (0, 1)]
    one, other = map(machine.encoder.encode, given)
    host = [graphs.encoder.encode(part) for part in given]
    slices = [(0, 1, 2), (0, 2, 3), (0, 3, 4), (1, 1, 2), (0, 5, 6), (1, 2, 3), (1, 0, 1)]  # of which, from, to
    bias, count = np.zeros((1, graphs.bundle.manifest.vocabulary_size), np.float32), len(slices)
    model = machine.decoder.start_empty(2 * count)
    rows = model.admit([(one, other)[which][a:b] for which, a, b in slices[:3]])
    tokens = np.full(count, graphs.bundle.vocabulary.start_id)
    ids, _ = model.step(tokens[:3], rows, bias, 2)
    machine.cuda.runs.clear()
    machine.cuda.downloads.clear()
    machine.cuda.uploads.clear()
    rows = model.admit([(one, other)[which][a:b] for which, a, b in slices])
    # context of the attention bundle takes no multiple of 256 bytes, so its images are written one by one
    assert machine.cuda.runs == ["run"] * (7 if graphs.bundle.manifest.context else 5)
    if not graphs.bundle.manifest.context:  # nor do its features, of which most slices are copied therefore
        assert machine.cuda.downloads == machine.cuda.uploads == []
    ids, log_probs = model.step(tokens, rows, bias, 2)
    expected_ids, expected = graphs.start(np.concatenate([host[which][a:b] for which, a, b in slices])).step(
        tokens, np.arange(count), bias, 2
    )
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(log_probs, expected, rtol=0, atol=1e-5)


def test_threads_may_read_features_while_others_capture(machine: Machine, graphs: Graphs) -> None:
    given = [pixels(graphs.bundle, 1 + i % 4, seed=i) for i in range(12)]
    together = threading.Barrier(12)

    def work(i: int) -> np.ndarray:
        together.wait()
        encoded = machine.encoder.encode(given[i])
        decoded(machine.decoder.start(encoded), Greedy(), graphs)
        return np.asarray(encoded)

    with ThreadPoolExecutor(12) as pool:
        for i, found in enumerate(pool.map(work, range(12))):
            np.testing.assert_allclose(found, graphs.encoder.encode(given[i]), rtol=0, atol=1e-5)


def test_memory_of_features_that_nobody_holds_is_used_again(machine: Machine, graphs: Graphs) -> None:
    for seed in range(6):
        machine.encoder.encode(pixels(graphs.bundle, 4, seed))
    held = len(machine.cuda.memory)
    kept = machine.encoder.encode(pixels(graphs.bundle, 4))
    assert len(machine.cuda.memory) == held
    machine.encoder.encode(pixels(graphs.bundle, 4))
    assert len(machine.cuda.memory) > held
    assert len(kept) == 4
