"""The running batch: requests with their own options, admitted at any step, stepped together. Knows no threads.

Requests with the same options share a search; all searches with questions of one kind share one run of the model.
"""

import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.captioner import Captioner
from engine.decoding.allowed import STRIDE
from engine.decoding.constraints import Rules
from engine.decoding.decode import begin, caption, draws_of
from engine.decoding.hypotheses import Sentence
from engine.decoding.search import Search
from engine.decoding.step_model import StepModel
from engine.decoding.step_request import Kind, no_numbers, no_numbers_error, together
from engine.errors import DeviceError, EngineError
from engine.options import Decoding, Sample
from engine.result import Caption
from engine.scheduling.request import Request


@dataclass(slots=True)
class _Lane:
    """What is asked together: a model that holds the state of all rows, and the searches that ask."""

    model: StepModel
    searches: dict[Decoding, Search] = field(default_factory=dict)  # by their options


Answer = tuple[Request, Caption | Exception]


class Decoder:
    """Decodes the requests of one captioner; belongs to one thread."""

    def __init__(self, captioner: Captioner, max_rows: int, rules: Callable[[Decoding], Rules]) -> None:
        """Rules returns the constraints of options, as `rules_of` does."""
        self._captioner = captioner
        self._rules = rules
        self._capacity = 2 * max_rows  # rows of the last step and images that are admitted to the next
        self._lanes: dict[Kind, _Lane] = {}
        self._where: dict[Request, tuple[_Lane, Search]] = {}
        self._streaming = 0

    def __len__(self) -> int:
        """How many requests are decoded."""
        return len(self._where)

    def warm_up(self) -> None:
        """Runs a step of each common kind, which opens its session; a thread's CUDA graphs are its own."""
        with contextlib.suppress(Exception):  # whoever needs what does not run is told then
            manifest, row = self._captioner.bundle.manifest, np.zeros(1, np.int64)
            model = self._captioner._graphs.begin(self._capacity)
            state = model.admit([np.zeros((1, manifest.feature_size), np.float32)])
            bias = np.zeros((1, manifest.vocabulary_size), np.float32)
            model.step(row, state, bias, STRIDE)
            model.draw(row, row, bias, np.ones(1), np.ones(1, np.float32))

    def admit(self, arrivals: Sequence[tuple[Request, np.ndarray]]) -> list[Answer]:
        """Takes requests into the next step, each with its features (1, feature_size); returns those that failed."""
        failed: list[Answer] = []
        by_kind: dict[Kind, list[tuple[Request, np.ndarray, Decoding, Search]]] = {}
        fresh: dict[Decoding, Search] = {}
        for request, features in arrivals:
            key = shared(request.decoding)
            held = (lane.searches[key] for lane in self._lanes.values() if key in lane.searches)
            search = fresh.get(key) or next(held, None) or self._search(key)
            fresh[key] = search
            by_kind.setdefault(search.kind, []).append((request, features, key, search))
        for kind, several in by_kind.items():
            try:
                self._join(kind, several)
            except Exception as error:
                self.drop([request for request, *_ in several])
                failed += [(request, failure(error, self._captioner)) for request, *_ in several]
        return failed

    def drop(self, requests: Collection[Request]) -> None:
        """Gives up requests, if they are decoded: their rows are not in the next step."""
        by_search: dict[int, tuple[_Lane, Search, set[Request]]] = {}
        for request in requests:
            if request in self._where:
                lane, search = self._where[request]
                by_search.setdefault(id(search), (lane, search, set()))[2].add(request)
                self._forget(request)
        for lane, search, gone in by_search.values():
            search.leave(gone)
            _tidy(lane)

    def step(self) -> tuple[list[Answer], int]:
        """Writes a word of each sentence; returns the requests that are done or failed, and the number of rows."""
        answers: list[Answer] = []
        rows = 0
        for kind, lane in list(self._lanes.items()):
            if lane.searches:
                try:
                    rows += self._step(lane, answers)
                except Exception as error:  # the run's own requests fail; the next ones get a new model
                    del self._lanes[kind]
                    lost = [request for request, (there, _) in self._where.items() if there is lane]
                    answers += [(request, failure(error, self._captioner)) for request in lost]
                    for request in lost:
                        self._forget(request)
        return answers, rows

    def clear(self) -> None:
        """Forgets everything: the requests are answered elsewhere."""
        self._lanes.clear()
        self._where.clear()
        self._streaming = 0

    def _step(self, lane: _Lane, answers: list[Answer]) -> int:
        searches = list(lane.searches.values())
        asks = [search.ask() for search in searches]
        ids, values = together(asks).put(lane.model)
        broken, first = no_numbers(values), 0
        for search, ask in zip(searches, asks, strict=True):
            rows = slice(first, first + len(ask.token_ids))
            its_ids, its_values = ids[rows], values[rows]
            if ask.k:
                its_ids, its_values = its_ids[:, : ask.k], its_values[:, : ask.k]
            if broken is not None and broken[rows].any():
                poisoned = search.owners_of(broken[rows])
                its_values = np.where(np.isnan(its_values), np.float32(-np.inf), its_values)
            else:
                poisoned = []
            for request, sentences in search.tell(its_ids, its_values, first):
                if request not in poisoned:
                    answers.append((request, self._caption(request, sentences)))
                    self._forget(request)
            if poisoned:
                answers += [(request, no_numbers_error()) for request in poisoned]
                search.leave(set(poisoned))
                for request in poisoned:
                    self._forget(request)
            if self._streaming:
                self._send(search)
            first = rows.stop
        _tidy(lane)
        return first

    def _join(self, kind: Kind, several: list[tuple[Request, np.ndarray, Decoding, Search]]) -> None:
        lane = self._lanes.get(kind)
        if lane is None:
            lane = self._lanes[kind] = _Lane(self._captioner._graphs.begin(self._capacity))
        state_rows = lane.model.admit([features for _, features, _, _ in several])
        groups: dict[Decoding, list[int]] = {}
        for i, (_, _, key, _) in enumerate(several):
            groups.setdefault(key, []).append(i)
        for key, places in groups.items():
            requests, search = [several[i][0] for i in places], several[places[0]][3]
            search.join(requests, state_rows[places], draws_of([request.decoding for request in requests]))
            lane.searches[key] = search
            for request in requests:
                self._where[request] = lane, search
                self._streaming += request.words is not None

    def _search(self, decoding: Decoding) -> Search:
        return begin(decoding, self._rules(decoding), self._captioner.bundle.manifest.defaults)

    def _forget(self, request: Request) -> None:
        del self._where[request]
        self._streaming -= request.words is not None

    def _caption(self, request: Request, sentences: Sequence[Sentence]) -> Caption:
        bundle = self._captioner.bundle
        made = caption(sentences, bundle.vocabulary, request.decoding, bundle.manifest.confidence)
        if request.words is not None:
            end = bundle.vocabulary.words[bundle.vocabulary.end_id]
            request.words.put([word for word in made.tokens if word != end][request.words.sent :])
        return made

    def _send(self, search: Search) -> None:
        """Sends the words that stand to those who stream."""
        vocabulary = self._captioner.bundle.vocabulary
        for request, tokens in search.standing({owner for owner in search.owners if owner.words is not None}):
            if new := [vocabulary.words[i] for i in tokens[request.words.sent :] if i != vocabulary.end_id]:
                request.words.put(new)


def failure(error: BaseException, captioner: Captioner) -> EngineError:
    """Returns what a request is told of a run that failed."""
    if isinstance(error, EngineError):
        return error
    told = DeviceError(f"a run failed on provider {captioner.provider!r}: {' '.join(str(error).split())}")
    told.__cause__ = error
    return told


def rules_of(captioner: Captioner, decoding: Decoding) -> Rules:
    """Returns the constraints in token ids. Raises OptionsError for what the captioner's model does not fit."""
    return Rules.of(decoding, captioner.bundle.vocabulary, captioner.bundle.manifest.defaults)


def shared(decoding: Decoding) -> Decoding:
    """Returns the options without what each request of a search may have of its own."""
    if isinstance(decoding, Sample):
        return replace(decoding, style="plain", seed=None, temperature=1.0)
    return decoding if decoding.style == "plain" else replace(decoding, style="plain")


def _tidy(lane: _Lane) -> None:
    """Forgets searches that have no image left."""
    if not all(search.owners for search in lane.searches.values()):
        lane.searches = {key: search for key, search in lane.searches.items() if search.owners}
