"""asyncio: one task per photograph; a semaphore limits how many requests the scheduler has at a time.

python examples/asyncio_tasks.py IMAGE…
"""

import asyncio
import sys
from collections.abc import Sequence

from engine import Beam, Captioner, Scheduler


async def describe(path: str, room: asyncio.Semaphore) -> str:
    """Returns a photograph's caption. Raises EngineError. Cancelling the task cancels its request."""
    async with room:
        caption = await scheduler.caption(path, Beam(beam_size=3), timeout=10)
    return caption.text


async def main(paths: Sequence[str]) -> None:
    """Prints all captions, then the first one again, word by word."""
    room = asyncio.Semaphore(64)
    texts = await asyncio.gather(*(describe(path, room) for path in paths))
    for path, text in zip(paths, texts, strict=True):
        print(path, text, sep="\t")
    async with scheduler.stream(paths[0]) as words:
        async for word in words:
            print(word, end=" ", flush=True)
    print()


if len(sys.argv) < 2:
    sys.exit(__doc__)
with Scheduler(Captioner()) as scheduler:
    asyncio.run(main(sys.argv[1:]))
