"""The running batch: requests with different options, which join at any step and are decoded together.

Requests with the same options share a search. Searches whose next steps are of the same kind share a run of the model.
"""

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.decoding.constraints import CANDIDATE_STRIDE
from engine.decoding.decode import draws_of, make_caption, make_search
from engine.decoding.hypotheses import TokenHypothesis
from engine.decoding.search import Search
from engine.decoding.step_model import StepModel
from engine.decoding.step_request import StepKind, merge, nan_error, nan_rows
from engine.errors import DeviceError, EngineError
from engine.model import Model
from engine.options import Decoding, Sample
from engine.result import Caption
from engine.scheduling.request import Request


@dataclass(slots=True)
class _Group:
    """Searches of one kind that step together, and the step model with the state of all their rows."""

    model: StepModel
    searches: dict[Decoding, Search] = field(default_factory=dict)  # by their options


Outcome = tuple[Request, Caption | Exception]


class RunningBatch:
    """Decodes the requests of one model; used by one thread only."""

    def __init__(self, model: Model, max_rows: int) -> None:
        self._model = model
        self._capacity = 2 * max_rows  # rows of the last step plus images admitted to the next
        self._groups: dict[StepKind, _Group] = {}
        self._where: dict[Request, tuple[_Group, Search]] = {}
        self._streaming = 0

    def __len__(self) -> int:
        """Number of requests being decoded."""
        return len(self._where)

    def warm_up(self) -> None:
        """Runs a step of each common kind, which opens its session; CUDA graphs are kept per thread."""
        with contextlib.suppress(Exception):  # a request that needs it will get the error
            manifest, row = self._model.bundle.manifest, np.zeros(1, np.int64)
            steps = self._model.start_empty(self._capacity)
            state = steps.admit([np.zeros((1, *manifest.feature_shape), np.float32)])
            bias = np.zeros((1, manifest.vocabulary_size), np.float32)
            steps.step(row, state, bias, CANDIDATE_STRIDE)
            steps.draw(row, row, bias, np.ones(1), np.ones(1, np.float32))

    def admit(self, arrivals: Sequence[tuple[Request, np.ndarray]]) -> list[Outcome]:
        """Admits requests to the next step, each with its features (1, *feature_shape); returns those that failed."""
        failed: list[Outcome] = []
        by_kind: dict[StepKind, list[tuple[Request, np.ndarray, Decoding, Search]]] = {}
        fresh: dict[Decoding, Search] = {}
        for request, features in arrivals:
            request.features = features if request.attention else None
            key = shared_options(request.decoding)
            held = (group.searches[key] for group in self._groups.values() if key in group.searches)
            search = fresh.get(key) or next(held, None) or self._search(key)
            fresh[key] = search
            by_kind.setdefault(search.kind, []).append((request, features, key, search))
        for kind, several in by_kind.items():
            try:
                self._join(kind, several)
            except Exception as error:
                self.drop([request for request, *_ in several])
                failed += [(request, as_engine_error(error, self._model)) for request, *_ in several]
        return failed

    def drop(self, requests: Collection[Request]) -> None:
        """Removes requests, if they are being decoded, before the next step."""
        by_search: dict[int, tuple[_Group, Search, set[Request]]] = {}
        for request in requests:
            if request in self._where:
                group, search = self._where[request]
                by_search.setdefault(id(search), (group, search, set()))[2].add(request)
                self._forget(request)
        for group, search, gone in by_search.values():
            search.remove(gone)
            _drop_finished(group)

    def step(self) -> tuple[list[Outcome], int]:
        """Decodes one more token of each sentence; returns the requests done or failed, and the number of rows."""
        outcomes: list[Outcome] = []
        rows = 0
        for kind, group in list(self._groups.items()):
            if group.searches:
                try:
                    rows += self._step(group, outcomes)
                except Exception as error:  # the requests of this run fail; later ones get a new step model
                    del self._groups[kind]
                    lost = [request for request, (there, _) in self._where.items() if there is group]
                    outcomes += [(request, as_engine_error(error, self._model)) for request in lost]
                    for request in lost:
                        self._forget(request)
        return outcomes, rows

    def clear(self) -> None:
        """Drops everything; the caller sets the requests' outcomes."""
        self._groups.clear()
        self._where.clear()
        self._streaming = 0

    def _step(self, group: _Group, outcomes: list[Outcome]) -> int:
        searches = list(group.searches.values())
        steps = [search.next_step() for search in searches]
        ids, log_probs = merge(steps).run(group.model)
        broken, first = nan_rows(log_probs), 0
        for search, step in zip(searches, steps, strict=True):
            rows = slice(first, first + len(step.token_ids))
            its_ids, its_log_probs = ids[rows], log_probs[rows]
            if step.k:
                its_ids, its_log_probs = its_ids[:, : step.k], its_log_probs[:, : step.k]
            if broken is not None and broken[rows].any():
                poisoned = search.owners_of_rows(broken[rows])
                its_log_probs = np.where(np.isnan(its_log_probs), np.float32(-np.inf), its_log_probs)
            else:
                poisoned = []
            for request, sentences in search.advance(its_ids, its_log_probs, first):
                if request not in poisoned:
                    outcomes.append((request, self._caption(request, sentences)))
                    self._forget(request)
            if poisoned:
                outcomes += [(request, nan_error()) for request in poisoned]
                search.remove(set(poisoned))
                for request in poisoned:
                    self._forget(request)
            if self._streaming:
                self._send(search)
            first = rows.stop
        _drop_finished(group)
        return first

    def _join(self, kind: StepKind, several: list[tuple[Request, np.ndarray, Decoding, Search]]) -> None:
        group = self._groups.get(kind)
        if group is None:
            group = self._groups[kind] = _Group(self._model.start_empty(self._capacity))
        state_rows = group.model.admit([features for _, features, _, _ in several])
        groups: dict[Decoding, list[int]] = {}
        for i, (_, _, key, _) in enumerate(several):
            groups.setdefault(key, []).append(i)
        for key, places in groups.items():
            requests, search = [several[i][0] for i in places], several[places[0]][3]
            search.add(requests, state_rows[places], draws_of([request.decoding for request in requests]))
            group.searches[key] = search
            for request in requests:
                self._where[request] = group, search
                self._streaming += request.words is not None

    def _search(self, decoding: Decoding) -> Search:
        return make_search(decoding, self._model.constraints(decoding), self._model.bundle.manifest.defaults)

    def _forget(self, request: Request) -> None:
        del self._where[request]
        request.features = None
        self._streaming -= request.words is not None

    def _caption(self, request: Request, sentences: Sequence[TokenHypothesis]) -> Caption | Exception:
        bundle = self._model.bundle
        made = make_caption(sentences, bundle.vocabulary, request.decoding, bundle.manifest.confidence)
        if request.attention:
            try:
                (made,) = self._model.with_attention(request.features, [made])
            except Exception as error:  # fails this request only
                return as_engine_error(error, self._model)
        if request.words is not None:
            end = bundle.vocabulary.words[bundle.vocabulary.end_id]
            request.words.put([word for word in made.tokens if word != end][request.words.sent :])
        return made

    def _send(self, search: Search) -> None:
        """Sends words that can no longer change to streaming requests."""
        vocabulary = self._model.bundle.vocabulary
        for request, tokens in search.stable_tokens({owner for owner in search.owners if owner.words is not None}):
            if new := [vocabulary.words[i] for i in tokens[request.words.sent :] if i != vocabulary.end_id]:
                request.words.put(new)


def as_engine_error(error: BaseException, model: Model) -> EngineError:
    """Returns the error for the requests of a failed run."""
    if isinstance(error, EngineError):
        return error
    failed = DeviceError(f"a run failed on provider {model.choice.provider!r}: {' '.join(str(error).split())}")
    failed.__cause__ = error
    return failed


def shared_options(decoding: Decoding) -> Decoding:
    """Returns the options without those that may differ between the requests of a search."""
    if isinstance(decoding, Sample):
        return replace(decoding, style="plain", seed=None, temperature=1.0)
    return decoding if decoding.style == "plain" else replace(decoding, style="plain")


def _drop_finished(group: _Group) -> None:
    """Drops searches without images."""
    if not all(search.owners for search in group.searches.values()):
        group.searches = {key: search for key, search in group.searches.items() if search.owners}
