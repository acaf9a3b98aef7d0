"""From images to answers through the scheduler; it accepts all images of a request or none. Knows no HTTP."""

import asyncio
from collections.abc import AsyncGenerator

from engine import Caption, CaptionFuture, CaptionStream, DeviceError, ImageError, OptionsError, Scheduler
from serving.decoding_options import Decoding
from serving.http.answers import Answer, Captioned, Failed, captioned
from serving.http.attention import NAME as ATTENTION
from serving.http.problems import Problem, problem_of
from serving.http.reports import Report

GRACE = 2.0  # seconds after the deadline until the service stops waiting for the scheduler
OWN = (ImageError, DeviceError)  # errors of one image; others are errors of the request


class Work:
    """Gives images to a scheduler and turns the results into answers. timeout: seconds for a request."""

    def __init__(self, scheduler: Scheduler, timeout: float) -> None:
        self.scheduler = scheduler
        self.timeout = timeout

    async def caption(self, images: list[bytes], decoding: Decoding, report: Report, *, attention: bool) -> Answer:
        """Returns the captions of all images; cancelling this cancels them. attention: with where the model looked.

        If one of several images fails, its error is in its place. Raises Problem for all other errors.
        """
        futures: list[CaptionFuture] = []
        try:
            for image in images:  # if one is refused, `finally` cancels the others
                future = self.scheduler.submit(image, decoding, timeout=self.timeout, attention=attention)
                futures.append(future)
            async with asyncio.timeout(self.timeout + GRACE):
                results = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        except Exception as error:
            raise self._problem(error, attention) from error
        finally:
            for future in futures:
                future.cancel()  # has no effect on one that is done
        kept = OWN if len(images) > 1 else ()
        pairs = zip(results, futures, strict=True)
        entries = [self._entry(result, future, kept, report) for result, future in pairs]
        return Answer(model=futures[0].model, request_id=report.request_id, captions=entries)

    async def words(
        self, image: bytes, decoding: Decoding, *, attention: bool
    ) -> AsyncGenerator[str | Captioned, None]:
        """Yields the words of an image's caption as they are decoded, then the caption. Raises Problem.

        Closing the generator cancels the work. The image is released as soon as the scheduler has it.
        """
        stream: CaptionStream | None = None
        deadline = asyncio.get_running_loop().time() + self.timeout + GRACE
        try:
            stream = self.scheduler.stream(image, decoding, timeout=self.timeout, attention=attention)
            del image  # otherwise this frame would keep it until the last word
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
            raise self._problem(error, attention) from error
        finally:
            if stream:
                await stream.aclose()

    def _problem(self, error: Exception, attention: bool) -> Problem:
        """Returns what a client may know about an error; the scheduler refuses attention that the model has not."""
        lacks = attention and not self.scheduler.captioner.bundle.manifest.attention
        if lacks and isinstance(error, OptionsError) and not error.name:  # a name: another option is wrong as well
            return Problem(ATTENTION, error.reason)
        return problem_of(error)

    def _entry(
        self, result: Caption | BaseException, future: CaptionFuture, kept: tuple[type[Exception], ...], report: Report
    ) -> Captioned | Failed:
        if isinstance(result, Caption):
            return captioned(result, future.timings)
        if isinstance(result, kept):
            return Failed(error=report.tell(result, "entry").body(report.request_id))
        raise problem_of(result) from result
