"""Measures search: `python -m benchmarks.retrieval --data FLICKR8K`, on the validation list.

Each caption that a person wrote is a query for its own photograph among all of the list (Hodosh et al. 2013, as in
Vinyals et al. 2015). Recall at K is the share of queries whose photograph is among the first K; the median rank is that
of the photograph. Annotation is the other way round: the best rank of a photograph's own captions among those of all.
Each stage of the search is measured alone, and the whole through PhotoIndex.search, which is what users call.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from engine import Captioner, PhotoIndex
from engine.commands.parser import Parser, existing_folder, explain_missing, whole
from engine.search import ranking
from engine.search.table import best
from engine.search.words import terms_of
from training.data.datasets import DataError, open_dataset

SLOW = "likelihood of all photographs"  # measured with few queries
PUBLISHED = {  # Vinyals et al. 2015 (arXiv:1411.4555), on the test list; quoted from memory
    "Google NIC, image search": {"R@1": 19.0, "R@10": 64.0, "median rank": 5.0},
    "Google NIC, annotation": {"R@1": 20.0, "R@10": 61.0, "median rank": 6.0},
}
RESAMPLES = 2000


def ranks_of(scores: np.ndarray, wanted: int) -> int:
    """Returns the rank of a place among scores (photographs,), from 1; of equal scores the lower place is first."""
    above = scores > scores[wanted]
    return 1 + int(above.sum()) + int((scores[:wanted] == scores[wanted]).sum())


def recalls(ranks: Sequence[int], owners: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """Returns recalls in percent and the median rank, with 95% intervals by resampling photographs.

    owners: the photograph that each rank belongs to.
    """
    values = np.asarray(ranks)
    photographs = np.unique(owners)
    places = [np.flatnonzero(np.asarray(owners) == photograph) for photograph in photographs]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([places[i] for i in generator.integers(0, len(places), len(places))])
        drawn.append([*(100 * float((values[rows] <= k).mean()) for k in (1, 5, 10)), float(np.median(values[rows]))])
    names = "R@1", "R@5", "R@10", "median rank"
    found = [*(100 * float((values <= k).mean()) for k in (1, 5, 10)), float(np.median(values))]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    interval = {name: [round(float(a), 1), round(float(b), 1)] for name, a, b in zip(names, low, high, strict=True)}
    return {name: round(value, 1) for name, value in zip(names, found, strict=True)} | {"intervals": interval}


class Measurement:
    """An index of the photographs, their captions, and what each stage finds."""

    def __init__(self, index: PhotoIndex, files: Sequence[Path], captions: Sequence[Sequence[str]]) -> None:
        self.index, self.captions = index, captions
        self.store = index._opened()
        self.ids = [photo.id for file in files if (photo := index.caption(file))]
        if len(self.ids) != len(files):
            raise DataError(f"{len(files) - len(self.ids)} of the photographs could not be indexed")
        self.features = self.store.features(self.ids)
        self.place = {id_: place for place, id_ in enumerate(self.ids)}
        self.queries = [(place, text) for place, texts in enumerate(captions) for text in texts]

    def words(self, query: str) -> np.ndarray:
        """BM25 of the captions' words."""
        terms = terms_of(query)
        frequencies = self.store.frequencies([word for term in terms for word in term.all])
        found = self.store.candidates(ranking.rare_words(terms, frequencies), ranking.MATCHING)
        return self._by_rank(found)

    def vectors(self, query: str) -> np.ndarray:
        """Cosines of all photographs."""
        assert self.index._vectors is not None
        cosines = self.store.cosines(self.index._vectors.of_texts([query])[0], self.ids)
        return np.array([cosines[id_] for id_ in self.ids])

    def likelihoods(self, query: str) -> np.ndarray:
        """The decoder's likelihood of the query under every photograph."""
        sentence = ranking.known_words(self.index.captioner.bundle.vocabulary, query)
        return ranking.likelihoods(self.index.captioner.model, sentence, self.features)

    def vectors_and_likelihood(self, query: str) -> np.ndarray:
        """Cosines, and the likelihood of the best."""
        scores = self.vectors(query).astype(np.float64)
        first = best(scores, ranking.RERANKED)
        sentence = ranking.known_words(self.index.captioner.bundle.vocabulary, query)
        likely = ranking.likelihoods(self.index.captioner.model, sentence, self.features[first])
        reranked = scores - 100
        reranked[first] = scores[first] + ranking.LIKELIHOOD * likely
        return reranked

    def search(self, query: str) -> np.ndarray:
        """What users get."""
        return self._by_rank([found.photo.id for found in self.index.search(query, len(self.ids))])

    def _by_rank(self, ids: Sequence[int]) -> np.ndarray:
        """Returns scores of all photographs: of these the higher, the earlier, of the others lower ones."""
        scores = np.full(len(self.ids), -1e6)
        scores[[self.place[id_] for id_ in ids]] = -np.arange(len(ids))
        return scores

    def annotation(self) -> list[int]:
        """Returns the best rank of a photograph's own captions among all, by cosine."""
        assert self.index._vectors is not None
        own = np.array([place for place, _ in self.queries])
        vectors = self.index._vectors.of_texts([text for _, text in self.queries])
        ranks = []
        for place, id_ in enumerate(self.ids):
            scores = vectors @ self.store.vector(id_)
            ranks.append(min(ranks_of(scores, int(i)) for i in np.flatnonzero(own == place)))
        return ranks


def measure(name: str, stage: Callable[[str], np.ndarray], queries: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Returns recalls of a stage, and its median time for a query in milliseconds."""
    ranks, times = [], []
    for place, query in tqdm(queries, name, unit="query", disable=None):
        start = time.perf_counter()
        scores = stage(query)
        times.append((time.perf_counter() - start) * 1e3)
        ranks.append(ranks_of(scores, place))
    owners = [place for place, _ in queries]
    return {**recalls(ranks, owners), "queries": len(queries), "milliseconds": round(statistics.median(times), 1)}


def report(stages: dict[str, dict[str, Any]]) -> str:
    """Returns the table."""
    lines = [f"{'':<34}   R@1   R@5  R@10  median rank    ms  queries"]
    for name, found in (stages | PUBLISHED).items():
        cells = [f"{found[key]:5.1f}" if key in found else "    -" for key in ("R@1", "R@5", "R@10")]
        taken = f"{found['milliseconds']:6.1f}" if "milliseconds" in found else "     -"
        lines.append(
            f"{name:<34} {' '.join(cells)}  {found['median rank']:11.1f}{taken}  {found.get('queries', '-')!s:>7}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the table."""
    arguments = _parser().parse_args(argv)
    try:
        dataset = open_dataset(arguments.data, "val")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    images = arguments.data / "images"
    if not images.is_dir():
        print(f"error: --data must be in the layout of Flickr8k, but {images} is no folder", file=sys.stderr)
        return 2
    examples = dataset.examples[: arguments.photographs]
    captioner = Captioner(arguments.bundle, provider=arguments.provider, precision=arguments.precision)
    with tempfile.TemporaryDirectory() as folder, PhotoIndex(Path(folder) / "photos.db", captioner) as index:
        files = [images / example.name for example in examples]
        index.add(files)
        measurement = Measurement(index, files, [example.captions for example in examples])
        queries = measurement.queries
        every = max(1, len(queries) // arguments.slow_queries)
        stages = {"words alone": measure("words alone", measurement.words, queries)}
        if index._vectors:
            stages["vectors alone"] = measure("vectors alone", measurement.vectors, queries)
        stages[SLOW] = measure(SLOW, measurement.likelihoods, queries[::every])
        if index._vectors:
            name = f"vectors, likelihood of the best {ranking.RERANKED}"
            stages[name] = measure(name, measurement.vectors_and_likelihood, queries)
        stages["search: these and words"] = measure("search", measurement.search, queries)
        if index._vectors:
            stages["annotation, vectors alone"] = recalls(measurement.annotation(), range(len(files)))
    print(f"{len(files):,} photographs, {captioner.bundle.manifest.name}, {captioner.provider} {captioner.precision}")
    print(report(stages))
    if arguments.json:
        facts = {"photographs": len(files), "bundle": captioner.bundle.manifest.name, "stages": stages}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.retrieval", description="Measures how well search finds photographs.")
    option = parser.add_argument
    option("--data", type=existing_folder("a folder in the layout of Flickr8k"), required=True, metavar="FOLDER")
    option("--bundle", metavar="FOLDER", help="bundle (default: the one that ships)")
    option("--provider", default="auto", metavar="NAME")
    option("--precision", default="auto", metavar="NAME")
    option("--photographs", type=whole(2), metavar="N", help="use the first N of the list (default: all)")
    option("--slow-queries", type=whole(1), default=150, metavar="N", help=f"for {SLOW} (default: %(default)s)")
    option("--json", type=Path, metavar="FILE", help="write the figures, with intervals")
    return parser


if __name__ == "__main__":
    explain_missing("cpu,train")
    sys.exit(main())
