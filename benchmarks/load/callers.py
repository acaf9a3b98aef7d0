"""The callers of the soak test: what they send, expect and record. Knows only the service's address."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

import httpx

from benchmarks.load.traffic import OPTIONS, Requests

TIMEOUT = 120.0  # seconds, far above the service's own
AT_ONCE = 24  # callers that measure the capacity
POOLS = 32  # of connections: one of hundreds is so slow that the callers could not keep their rate
KEPT = (
    2.0  # seconds that a connection is kept for the next request, less than the 5 of the service: no race for its end
)
SHARES = {"single": 68, "stream": 10, "several": 6, "bad": 6, "gone": 6, "slow": 4}


class Callers:
    """Sends requests of all kinds, each with a unique id, and records their outcomes."""

    def __init__(
        self, url: str, requests: Requests, expected: dict[tuple[int, str], str], chance: random.Random
    ) -> None:
        self._url, self._requests, self._expected, self._chance = url, requests, expected, chance
        limits = httpx.Limits(max_connections=None, keepalive_expiry=KEPT)
        self._clients = [httpx.AsyncClient(timeout=TIMEOUT, limits=limits) for _ in range(POOLS)]
        self._turns = itertools.cycle(self._clients)
        self._numbers = itertools.count()
        self.reset()

    async def __aenter__(self) -> "Callers":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            await client.aclose()

    def reset(self) -> None:
        """Forgets what was noted."""
        self._outcomes: Counter[str] = Counter()
        self._milliseconds: list[float] = []
        self.faults: list[str] = []
        self.sent: list[str] = []

    def outcomes(self) -> dict[str, int]:
        """Returns how many requests ended how."""
        return dict(self._outcomes)

    def latencies(self) -> tuple[float, float]:
        """Returns the median and the 99th percentile of answered requests, in milliseconds."""
        times = sorted(self._milliseconds) or [0.0]
        return times[len(times) // 2], times[min(len(times) - 1, int(0.99 * len(times)))]

    async def capacity(self, seconds: float) -> float:
        """Returns how many requests of all kinds end in a second when callers wait for their answers."""
        end = time.monotonic() + seconds

        async def call() -> int:
            count = 0
            while time.monotonic() < end:
                await self.one()
                count += 1
            return count

        began = time.monotonic()
        counts = await asyncio.gather(*(call() for _ in range(AT_ONCE)))
        return sum(counts) / (time.monotonic() - began)

    async def one(self) -> None:
        """Sends a request of some kind, and notes how it ended."""
        kind = self._chance.choices(list(SHARES), list(SHARES.values()))[0]
        photo, way = self._requests.next(self._chance)
        number = f"soak-{next(self._numbers)}"
        send: Callable[[int, str, str], Awaitable[str]] = getattr(self, f"_{kind}")
        began = time.monotonic()
        try:
            outcome = await send(photo, way, number)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        if outcome == "answered":
            self._milliseconds.append(1000 * (time.monotonic() - began))
        if outcome in ("answered", "refused", "went away"):
            self._outcomes[outcome if outcome != "answered" else f"answered: {kind}"] += 1
        else:
            self._outcomes["fault"] += 1
            self.faults.append(f"{kind} {number}: {outcome}")

    async def _single(self, photo: int, way: str, number: str) -> str:
        answer = await self._post(f"/v1/captions?{OPTIONS[way]}", number, content=self._requests.files[photo])
        return self._judge(answer, [(photo, way)])

    async def _several(self, photo: int, way: str, number: str) -> str:
        photos = [(photo + step) % len(self._requests.files) for step in range(3)]
        files = [("images", (f"{each}.jpg", self._requests.files[each])) for each in photos]
        answer = await self._post(f"/v1/captions?{OPTIONS[way]}", number, files=files)
        return self._judge(answer, [(each, way) for each in photos])

    async def _slow(self, photo: int, way: str, number: str) -> str:
        file = self._requests.files[photo]
        pause = self._chance.uniform(0.01, 0.3)

        async def dawdle() -> AsyncIterator[bytes]:
            for at in range(0, len(file), 8192):
                yield file[at : at + 8192]
                await asyncio.sleep(pause)

        answer = await self._post(f"/v1/captions?{OPTIONS[way]}", number, content=dawdle())
        return self._judge(answer, [(photo, way)])

    async def _bad(self, photo: int, way: str, number: str) -> str:
        file = self._requests.files[photo]
        body = self._chance.choice([b"", b"no image", file[: len(file) // 3], self._chance.randbytes(20_000)])
        answer = await self._post(f"/v1/captions?{OPTIONS[way]}", number, content=body)
        if answer.status_code == 422 and answer.json()["type"] == "urn:captioning:image":
            return "answered"
        return self._other(answer)

    async def _gone(self, photo: int, way: str, number: str) -> str:
        asking = asyncio.create_task(self._single(photo, way, number))
        done, _ = await asyncio.wait((asking,), timeout=self._chance.expovariate(2))
        if done:
            return asking.result()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        self.sent.remove(number)  # whether the service saw it at all, nobody knows
        return "went away"

    async def _stream(self, photo: int, way: str, number: str) -> str:
        request = self._ask(f"/v1/captions/stream?{OPTIONS[way]}", number, content=self._requests.files[photo])
        answer = await next(self._turns).send(request)
        if answer.status_code != 200:
            return self._other(answer)
        told = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
        data = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        if told != ["word"] * (len(told) - 1) + ["caption"]:
            return f"a stream of {told}: {data[-1:]}"
        right = data[-1]["caption"] == self._expected[photo, way]
        words = " ".join(each["word"] for each in data[:-1])
        return "answered" if right and words == data[-1]["caption"] else f"wrong: {words!r}, {data[-1]['caption']!r}"

    def _ask(self, path: str, number: str, **body: Any) -> httpx.Request:
        headers = {"X-Request-ID": number} | ({} if "files" in body else {"Content-Type": "image/jpeg"})
        self.sent.append(number)
        return self._clients[0].build_request("POST", self._url + path, headers=headers, **body)

    async def _post(self, path: str, number: str, **body: Any) -> httpx.Response:
        answer = await next(self._turns).send(self._ask(path, number, **body))
        if answer.headers["x-request-id"] != number:
            raise ValueError(f"the answer to {answer.headers['x-request-id']}")
        return answer

    def _judge(self, answer: httpx.Response, asked: list[tuple[int, str]]) -> str:
        if answer.status_code != 200:
            return self._other(answer)
        told = [entry.get("caption") for entry in answer.json()["captions"]]
        wanted = [self._expected[each] for each in asked]
        return "answered" if told == wanted else f"wrong: {told}, not {wanted}"

    def _other(self, answer: httpx.Response) -> str:
        refused = answer.status_code == 429 and "retry-after" in answer.headers
        return "refused" if refused else f"{answer.status_code} {answer.text[:200]}"
