"""From images to features: the same whichever way they take, in order, and nothing lost to a neighbour."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ImageError
from engine.images.pipeline import Pipeline
from engine.runtime.encoder import Encoder


class Doubling(Encoder):
    """An encoder whose one feature is twice the first byte of the image."""

    def __init__(self, lanes: int) -> None:
        super().__init__(lambda threads: None, (1,), lanes=lanes)
        self.runs: list[tuple[str, int]] = []

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return self._double("wide", pixels)

    def encode_in_lane(self, pixels: np.ndarray) -> np.ndarray:
        return self._double("lane", pixels)

    def _double(self, way: str, pixels: np.ndarray) -> np.ndarray:
        self.runs.append((way, len(pixels)))
        return pixels[:, 0, 0, :1].astype(np.float32) * 2


def load(image: Any, out: np.ndarray) -> None:
    out[:] = value = image.flat[0] if isinstance(image, np.ndarray) else image[0]
    if value == 255:
        raise ImageError("is 255", source="made")


def pipeline(lanes: int, batch_size: int = 32) -> tuple[Pipeline, Doubling]:
    encoder = Doubling(lanes)
    return Pipeline(load, encoder, shape=(2, 3, 3), batch_size=batch_size), encoder


@settings(deadline=None)  # a busy machine is no fault
@given(values=st.lists(st.integers(0, 255), max_size=40), lanes=st.integers(0, 5), batch_size=st.integers(1, 12))
def test_each_image_has_its_own_features_whichever_way_it_took(values: list[int], lanes: int, batch_size: int) -> None:
    run, _ = pipeline(lanes, batch_size)
    errors: list[ImageError | None] = []
    features: list[float] = []
    for encoded in run.run([bytes([value]) for value in values], fail=False):
        assert 1 <= len(encoded.errors) <= batch_size
        assert len(encoded.features) == encoded.errors.count(None)
        errors += encoded.errors
        features += np.asarray(encoded.features)[:, 0].tolist()
    assert features == [2 * value for value in values if value != 255]
    assert [error and error.entry for error in errors] == [
        i if value == 255 else None for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(("images", "lanes", "parts"), [(32, 2, [4] * 8), (8, 4, [2] * 4), (2, 2, [1, 1]), (9, 2, 9)])
def test_lanes_have_even_parts_of_few_images(images: int, lanes: int, parts: list[int] | int) -> None:
    run, encoder = pipeline(lanes)
    list(run.run([b"a"] * images, fail=True))
    assert {way for way, _ in encoder.runs} == {"lane"}
    sizes = sorted((size for _, size in encoder.runs), reverse=True)
    if isinstance(parts, list):
        assert sizes == parts
    else:
        assert sum(sizes) == parts
        assert len(sizes) % lanes == 0
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("images", "lanes"), [(1, 4), (3, 2), (32, 0)])
def test_few_images_have_all_threads_and_so_has_a_device(images: int, lanes: int) -> None:
    run, encoder = pipeline(lanes)
    list(run.run([b"a"] * images, fail=True))
    assert encoder.runs == [("wide", images)]


@pytest.mark.parametrize("lanes", [0, 2])
def test_the_first_broken_image_is_raised(lanes: int) -> None:
    run, _ = pipeline(lanes, 4)
    with pytest.raises(ImageError) as caught:
        list(run.run([b"a", b"b", b"\xff", b"\xff"] * 2, fail=True))
    assert caught.value.entry == 2


@pytest.mark.parametrize("lanes", [0, 2])
@pytest.mark.parametrize(("given", "batches"), [(0, []), (1, [1]), (4, [2, 2]), (5, [2, 2, 1])])
def test_what_an_iterable_gave_before_it_failed_comes_first(given: int, batches: list[int], lanes: int) -> None:
    def images() -> Iterator[bytes]:
        yield from [b"a"] * given
        raise OSError("the disk is gone")

    run, _ = pipeline(lanes, 2)
    seen: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(len(encoded.errors) for encoded in run.run(images(), fail=True))
    assert seen == batches


def test_nothing_is_read_any_more_when_a_call_is_over() -> None:
    reading, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(image: bytes, out: np.ndarray) -> None:
        if image == b"b":
            reading.set()
            assert may_end.wait(10)
            ended.set()
        load(image, out)

    batches = Pipeline(slow, Doubling(2), shape=(2, 3, 3), batch_size=2).run([b"a", b"a", b"b", b"b"], fail=True)
    next(batches)
    assert reading.wait(10)
    threading.Timer(0.05, may_end.set).start()
    batches.close()  # type: ignore[attr-defined]
    assert ended.is_set()


def test_a_buffer_may_be_filled_anew_before_the_next_image_is_taken() -> None:
    run, _ = pipeline(2, 2)
    buffer = bytearray(1)

    def refilled() -> Iterator[bytearray]:
        for value in range(4):
            buffer[0] = value
            yield buffer

    features = np.concatenate([encoded.features for encoded in run.run(refilled(), fail=True)])
    assert features[:, 0].tolist() == [0, 2, 4, 6]


def test_the_next_batch_is_at_work_while_this_one_is_taken() -> None:
    begun = threading.Event()

    def watch(image: bytes, out: np.ndarray) -> None:
        if image == b"b":
            begun.set()
        load(image, out)

    batches = Pipeline(watch, Doubling(2), shape=(2, 3, 3), batch_size=2).run([b"a"] * 2 + [b"b"] * 4, fail=True)
    next(batches)
    assert begun.wait(10)
    assert len(list(batches)) == 2


def test_an_array_is_read_before_its_owner_can_change_it() -> None:
    run, _ = pipeline(2, 2)
    frame = np.zeros((2, 3, 3), np.uint8)

    def frames() -> Iterator[np.ndarray]:
        for value in range(6):
            frame[:] = value
            yield frame

    features = np.concatenate([encoded.features for encoded in run.run(frames(), fail=True)])
    assert features[:, 0].tolist() == [0, 2, 4, 6, 8, 10]


class Session:
    """An onnxruntime.InferenceSession whose runs wait until they may end."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run

    def io_binding(self) -> Any:
        return self

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        pass

    def bind_output(self, *args: Any) -> None:
        pass

    def run_with_iobinding(self, binding: Any) -> None:
        self._run()


def test_a_caller_who_finds_all_threads_taken_makes_do_with_its_own() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert leave.wait(10)

    opened: list[int] = []

    def open_session(threads: int) -> Session:
        opened.append(threads)
        return Session(wait if threads == 0 else lambda: None)

    encoder = Encoder(open_session, (1,), lanes=2)
    pixels = np.zeros((1, 2, 3, 3), np.uint8)
    first = threading.Thread(target=encoder.encode, args=(pixels,))
    first.start()
    assert entered.wait(10)
    encoder.encode(pixels)  # returns while the first still runs
    assert opened == [0, 1]
    leave.set()
    first.join(10)
    encoder.encode(pixels)
    assert opened == [0, 1, 0]
