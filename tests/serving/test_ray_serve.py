"""Ray Serve without a cluster: what is asked of Ray for a set of options, and a replica as Serve uses it."""

import asyncio
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra ray")

from engine import (
    Beam,
    Captioner,
    ClosedError,
    DeadlineError,
    DeviceError,
    Greedy,
    OptionsError,
    OverloadedError,
    Sample,
)
from tests.serving.calls import ask, events, problem

with warnings.catch_warnings():  # ray.serve's own
    warnings.simplefilter("ignore", DeprecationWarning)
    from serving.ray_serve import PATIENCE, PERIOD, UPLOADS, Options, Replica, app

QUICK = Options(provider="cpu", precision="int8", max_queue=64)
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    """A replica with one token, on its own."""
    replica = Replica(QUICK, (b"secret",))
    yield replica
    replica.scheduler.close()


def deployment(options: Options) -> Any:
    """Returns what Ray made of the options, once it has checked them."""
    return app(options)._bound_deployment


def test_ray_is_asked_for_what_the_options_say() -> None:
    options = Options(
        num_cpus=2, num_gpus=0.5, min_replicas=2, max_replicas=8, target_requests=5, max_queue=10, timeout=20
    )
    asked = deployment(options)
    config = asked._deployment_config
    scaling = config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 8, 5)
    assert (asked.ray_actor_options["num_cpus"], asked.ray_actor_options["num_gpus"]) == (2, 0.5)
    assert (asked.max_ongoing_requests, asked.max_queued_requests) == (10, 40)
    assert (config.health_check_period_s, config.health_check_timeout_s) == (PERIOD, PATIENCE)
    assert config.graceful_shutdown_timeout_s == 20 + UPLOADS
    assert asked.init_args == (options, ())


def test_more_replicas_at_least_than_at_most_are_as_many_as_at_least() -> None:
    scaling = deployment(Options(min_replicas=6))._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (6, 6)


def test_tokens_are_those_of_the_process_that_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONING_TOKEN", "first\n second \n")
    assert deployment(Options()).init_args == (Options(), (b"first", b"second"))
    for empty in ("", " \n"):
        monkeypatch.setenv("CAPTIONING_TOKEN", empty)
        with pytest.raises(OptionsError, match="holds no token"):
            app(Options())


@pytest.mark.parametrize("wrong", [{"max_queue": 0}, {"num_gpus": -1}, {"timeout": 0}, {"max_pixles": 1}])
def test_an_option_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options.model_validate(wrong)


def test_a_replica_answers_who_has_its_token_whole_or_word_by_word(replica: Replica, photos: list[bytes]) -> None:
    service = replica.__serve_build_asgi_app__()
    problem(ask(service, "POST", "/v1/captions", content=photos[0], headers=JPEG), 401, "token")
    known = JPEG | {"Authorization": "Bearer secret"}
    assert ask(service, "GET", "/readyz").status_code == 200
    [answer] = ask(service, "POST", "/v1/captions", content=photos[0], headers=known).json()["captions"]
    expected = Captioner(provider="cpu", precision="int8").caption(photos[:1])[0]
    assert answer["caption"] == expected.text
    streamed = events(ask(service, "POST", "/v1/captions/stream", content=photos[0], headers=known).text)
    assert streamed[-1][1]["caption"] == expected.text
    assert len(streamed) == len(expected.text.split()) + 1


def test_formats_are_named_as_on_the_command_line(photos: list[bytes]) -> None:
    with pytest.raises(OptionsError, match="'RAW' is not a format"):
        Replica(Options(provider="cpu", precision="int8", formats="png,raw"))
    replica = Replica(Options(provider="cpu", precision="int8", formats="png"))
    answer = ask(replica.__serve_build_asgi_app__(), "POST", "/v1/captions", content=photos[0], headers=JPEG)
    assert "JPEG" in problem(answer, 422, "image")["detail"]


def refuses(error: Exception) -> Callable[..., Any]:
    async def caption(*_: Any, **__: Any) -> Any:
        raise error

    return caption


def test_a_busy_replica_is_well_and_one_whose_device_fails_is_not(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(replica.check_health())
    for busy in (OverloadedError("full"), DeadlineError("late")):
        monkeypatch.setattr(replica.scheduler, "caption", refuses(busy))
        asyncio.run(replica.check_health())
    for broken in (DeviceError("the device failed"), ClosedError("closed")):
        monkeypatch.setattr(replica.scheduler, "caption", refuses(broken))
        with pytest.raises(type(broken)):
            asyncio.run(replica.check_health())


def test_a_replica_that_ends_finishes_what_it_accepted(photos: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Captioner, "warmup", lambda *_, **__: None)  # seconds, and no matter here
    ends = Replica(QUICK)
    decodings: tuple[Greedy | Beam | Sample, ...] = (Greedy(), Beam(beam_size=5), Sample(seed=1)) * 4
    accepted = [ends.scheduler.submit(photos[i % 3], decoding) for i, decoding in enumerate(decodings)]
    scheduler = ends.scheduler
    del ends
    assert all(future.result(timeout=0).text for future in accepted)
    with pytest.raises(ClosedError):
        scheduler.submit(photos[0])
