"""`serve run serving.ray_serve:app`: the HTTP service of serving.http on Ray Serve, with a scheduler in each replica.

Owns the replicas: how many there are, how they start, show their health and end. serving.http answers the requests.
"""

from contextlib import suppress
from typing import Any

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from ray import serve
from ray.serve import Application

from engine import Captioner, DeadlineError, Greedy, OverloadedError, RuntimeOptions, Scheduler
from serving.formats import as_argument, format_names
from serving.http.app import WARM, create_app
from serving.http.limits import MAX_PIXELS, Limits
from serving.http.tokens import read_tokens

PERIOD, PATIENCE = 10, 30  # seconds between two health checks, and the most that one may take
UPLOADS = 5  # seconds in addition to the time of a request until a replica that ends is killed


class Options(BaseModel):
    """The options of `serve run serving.ray_serve:app NAME=VALUE …`; in a configuration file they are `args`.

    A replica takes num_cpus cores, one for each thread of its engine, and num_gpus GPUs. Replicas are added, up to
    max_replicas, while they have more than target_requests active requests on average. formats: the formats to read, by
    Pillow's names separated by commas, such as JPEG,PNG,WEBP; by default the usual ones of photographs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str | None = None
    provider: str = "auto"
    precision: str = "auto"
    formats: str | None = None
    num_cpus: PositiveInt = 1
    num_gpus: float = Field(default=0, ge=0)
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: PositiveInt = 4
    target_requests: PositiveFloat = 16
    max_rows: PositiveInt = 256
    max_queue: PositiveInt = 64
    max_wait_ms: float = Field(default=2.0, ge=0)
    timeout: PositiveFloat = 30.0


class Replica:
    """A process with a Captioner and its Scheduler."""

    def __init__(self, options: Options, tokens: tuple[bytes, ...] = ()) -> None:
        """Opens and warms up the model; Serve sends requests only after that. Raises EngineError."""
        captioner = Captioner(
            options.bundle,
            provider=options.provider,
            precision=options.precision,
            max_pixels=MAX_PIXELS,
            **as_argument(format_names(options.formats)),
            runtime=RuntimeOptions(threads=options.num_cpus),
        )
        captioner.warmup(decodings=WARM)
        self._limits = Limits(timeout=options.timeout).for_queue(options.max_queue)
        self._tokens = tokens
        self.scheduler = Scheduler(
            captioner, max_rows=options.max_rows, max_queue=options.max_queue, max_wait_ms=options.max_wait_ms
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Returns the application that answers requests."""
        return create_app(self.scheduler, limits=self._limits, tokens=self._tokens, warm=False)

    async def check_health(self) -> None:
        """Captions a grey image: Serve replaces a replica whose device or scheduler fails, but not a busy one."""
        grey = np.full((8, 8, 3), 128, np.uint8)
        with suppress(OverloadedError, DeadlineError):
            await self.scheduler.caption(grey, Greedy(max_length=2), timeout=PATIENCE / 2)

    def __del__(self) -> None:
        """Finishes the accepted requests; Serve has stopped sending new ones before."""
        if scheduler := getattr(self, "scheduler", None):
            scheduler.close(timeout=self._limits.timeout)


def app(options: Options) -> Application:
    """Returns the application for `serve run`. Its tokens are the lines of this process's CAPTIONING_TOKEN, if set.

    Raises OptionsError if that variable is set and has no token.
    """
    settings: dict[str, Any] = {
        "autoscaling_config": {
            "min_replicas": options.min_replicas,
            "max_replicas": max(options.min_replicas, options.max_replicas),
            "target_ongoing_requests": options.target_requests,
        },
        "ray_actor_options": {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus},
        "max_ongoing_requests": options.max_queue,  # others wait at the proxies, where another replica can take them
        "max_queued_requests": 4 * options.max_queue,  # others are refused with status 503
        "health_check_period_s": PERIOD,
        "health_check_timeout_s": PATIENCE,
        "graceful_shutdown_timeout_s": options.timeout + UPLOADS,
        "graceful_shutdown_wait_loop_s": 0.5,
    }
    replica = serve.deployment(name="captions", **settings)(serve.ingress()(Replica))
    application: Application = replica.bind(options, tuple(read_tokens()))
    return application
