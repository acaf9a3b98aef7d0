"""From images to answers by the scheduler: all images of a request are accepted, or none. Knows no HTTP."""

import asyncio
from collections.abc import AsyncGenerator

from engine import Caption, CaptionFuture, CaptionStream, DeviceError, ImageError, Scheduler
from serving.decoding_options import Decoding
from serving.http.answers import Answer, Captioned, Failed, captioned
from serving.http.problems import problem_of
from serving.http.reports import Report

GRACE = 2.0  # seconds after which the service no longer waits for a scheduler that ought to have given up itself
OWN = (ImageError, DeviceError)  # errors that concern one image; others concern the request


class Work:
    """Gives images to a scheduler and makes answers of what comes back. timeout: seconds for a request."""

    def __init__(self, scheduler: Scheduler, timeout: float) -> None:
        self.scheduler = scheduler
        self.timeout = timeout

    async def caption(self, images: list[bytes], decoding: Decoding, report: Report) -> Answer:
        """Returns the captions of all images; being cancelled cancels them.

        An error of one of several images stands in its place; all others raise Problem.
        """
        futures: list[CaptionFuture] = []
        try:
            for image in images:  # one refused refuses all: `finally` takes the others back
                futures.append(self.scheduler.submit(image, decoding, timeout=self.timeout))  # noqa: PERF401
            async with asyncio.timeout(self.timeout + GRACE):
                results = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        except Exception as error:
            raise problem_of(error) from error
        finally:
            for future in futures:
                future.cancel()  # which does nothing to one that is done
        kept = OWN if len(images) > 1 else ()
        pairs = zip(results, futures, strict=True)
        entries = [self._entry(result, future, kept, report) for result, future in pairs]
        return Answer(model=futures[0].model, request_id=report.request_id, captions=entries)

    async def words(self, image: bytes, decoding: Decoding) -> AsyncGenerator[str | Captioned, None]:
        """Yields the words of an image's caption as they come, then the whole; leaving cancels. Raises Problem.

        The image is let go as soon as the scheduler has it.
        """
        stream: CaptionStream | None = None
        deadline = asyncio.get_running_loop().time() + self.timeout + GRACE
        try:
            stream = self.scheduler.stream(image, decoding, timeout=self.timeout)
            del image  # or this frame would keep it until the last word is taken
            while True:
                async with asyncio.timeout_at(deadline):
                    word = await anext(stream, None)
                if word is None:
                    break
                yield word
            async with asyncio.timeout_at(deadline):
                caption = await stream.caption()
            yield captioned(caption, stream.timings)
        except Exception as error:
            raise problem_of(error) from error
        finally:
            if stream:
                await stream.aclose()

    def _entry(
        self, result: Caption | BaseException, future: CaptionFuture, kept: tuple[type[Exception], ...], report: Report
    ) -> Captioned | Failed:
        if isinstance(result, Caption):
            return captioned(result, future.timings)
        if isinstance(result, kept):
            return Failed(error=report.tell(result, "entry").body(report.request_id))
        raise problem_of(result) from result
