"""Laws of rolling out a bundle under load: `Scheduler.swap` loses nothing, doubles nothing and mixes nothing."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import Beam, BundleError, Caption, Captioner, CaptionFuture, Greedy, Sample, Scheduler
from tests.bundles import write_changed_bundle

SAMPLES = sorted((Path(__file__).parents[1] / "samples").glob("*.jpg"))[:3]
Decoding = Greedy | Beam | Sample
WAYS: tuple[Decoding, ...] = (
    Greedy(),
    Beam(beam_size=3, num_hypotheses=2),
    Sample(seed=7, num_samples=2),
    Greedy(max_length=5, style="sentence"),
)
CALLERS = 4
Ask = tuple[Path, Decoding]


@pytest.fixture(scope="module")
def old() -> Captioner:
    return Captioner(provider="cpu")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    return Captioner(write_changed_bundle(tmp_path_factory.mktemp("rollout") / "new"), provider="cpu")


@pytest.fixture(scope="module")
def expected(old: Captioner, new: Captioner) -> dict[tuple[str, Ask], Caption]:
    """What each bundle says of each photograph each way, alone."""
    return {
        (name, (path, way)): captioner.caption([path], way)[0]
        for name, captioner in (("old", old), ("new", new))
        for path in SAMPLES
        for way in WAYS
    }


def writer(ask: Ask, caption: Caption, expected: dict[tuple[str, Ask], Caption]) -> str:
    """Returns which bundle alone wrote a caption, all of its sentences, by words and by what the words are worth."""
    for name in ("old", "new"):
        whole = expected[name, ask]
        same = [each.text for each in caption.alternatives] == [each.text for each in whole.alternatives]
        if same and caption.log_prob == pytest.approx(whole.log_prob, abs=1e-3):
            return name
    raise AssertionError(f"{ask} was answered by neither bundle: {caption}")


class Load:
    """Callers that ask without a pause from when it is entered until it is left, each with a few requests at once."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.asked: list[tuple[Ask, CaptionFuture]] = []
        self.answers: Counter[int] = Counter()  # by the identity of the future, which `asked` keeps alive
        self._turn = threading.Condition()
        self._ended = False
        self._pool = ThreadPoolExecutor(CALLERS)

    def __enter__(self) -> "Load":
        self._callers = [self._pool.submit(self._call, caller) for caller in range(CALLERS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for caller in self._callers:
            caller.result()
        self._pool.shutdown()

    def wait_for_more(self, count: int) -> None:
        """Returns when so many more requests than now were answered."""
        with self._turn:
            goal = self.answers.total() + count
            assert self._turn.wait_for(lambda: self.answers.total() >= goal, 60)

    def _call(self, caller: int) -> None:
        room = threading.Semaphore(4)
        for ask in itertools.islice(itertools.cycle(itertools.product(SAMPLES, WAYS)), caller * 7, None):
            if self._ended:
                return
            assert room.acquire(timeout=60)
            future = self.scheduler.submit(*ask)
            self.asked.append((ask, future))
            future.add_done_callback(self._count(room))

    def _count(self, room: threading.Semaphore) -> Callable[[Future[Caption]], None]:
        def count(future: Future[Caption]) -> None:
            with self._turn:
                self.answers[id(future)] += 1
                self._turn.notify_all()
            room.release()

        return count


@pytest.fixture
def scheduler(old: Captioner) -> Iterator[Scheduler]:
    with Scheduler(old, max_queue=64) as scheduler:
        yield scheduler


def test_the_two_bundles_differ_in_every_answer(expected: dict[tuple[str, Ask], Caption]) -> None:
    for ask in itertools.product(SAMPLES, WAYS):
        before, after = expected["old", ask], expected["new", ask]
        assert before.text != after.text
        assert abs(before.log_prob - after.log_prob) > 0.01


def test_swapping_under_load_answers_every_request_once_by_one_bundle(
    scheduler: Scheduler, old: Captioner, new: Captioner, expected: dict[tuple[str, Ask], Caption]
) -> None:
    marks = []
    with Load(scheduler) as load:
        load.wait_for_more(16)
        for captioner in (new, old):
            begun = len(load.asked)
            scheduler.swap(captioner)
            marks.append((begun, len(load.asked)))
            load.wait_for_more(16)
    writers = [writer(ask, future.result(60), expected) for ask, future in load.asked]
    assert load.answers == Counter(id(future) for _, future in load.asked)
    stats = scheduler.stats()
    assert stats.accepted == stats.finished == len(writers)
    assert stats.failed == stats.cancelled == stats.expired == stats.refused == 0
    # who asked before a swap began is answered by the one before it, who asks after it returned by the one after it
    sides = [(0, "old"), *zip((end for _, end in marks), ("new", "old"), strict=True)]
    begins = [*(begun for begun, _ in marks), len(writers)]
    for (start, name), stop in zip(sides, begins, strict=True):
        certain = writers[start + CALLERS : stop - CALLERS]  # a caller may stand between asking and writing it down
        assert set(certain) <= {name}
    assert set(writers) == {"old", "new"}


def test_a_bundle_that_does_not_open_changes_nothing(
    scheduler: Scheduler, old: Captioner, new: Captioner, expected: dict[tuple[str, Ask], Caption], tmp_path: Path
) -> None:
    broken = write_changed_bundle(tmp_path / "broken")
    manifest = broken / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text(encoding="utf-8")), "format_version": 99}))
    with Load(scheduler) as load:
        load.wait_for_more(4)
        with pytest.raises(BundleError, match="format version is 99"):
            scheduler.swap(broken)
        assert scheduler.captioner is old
        load.wait_for_more(4)
    assert {writer(ask, future.result(60), expected) for ask, future in load.asked} == {"old"}
