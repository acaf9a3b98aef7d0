"""Decides what "auto" means: which providers to try in which order, in which precision, on how many threads.

Pure logic on a manifest and on what is known about the machine; measures nothing. It never falls back silently:
`open_first` warns about each choice that did not start.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from engine.autotune.cache_file import Measurements, load
from engine.autotune.machine import has_vnni
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Manifest
from engine.errors import ProviderError
from engine.runtime.options import RuntimeOptions
from engine.runtime.placement import canonical
from engine.runtime.providers import AUTO_ORDER, PROVIDERS, is_available

CIDER_LOSS = 0.005  # the most CIDEr a precision may cost for "auto" to choose it
THROUGHPUT_FROM = 8  # from this batch size on throughput decides; below it, the latency of one image
AS_EXACT = "exact, and no faster precision starts here"
Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known about the machine: available providers of the default order, measurements, and has_vnni()."""

    available: tuple[str, ...]
    measurements: Measurements | None = None
    vnni: bool | None = None

    @classmethod
    def here(cls, bundle: Bundle) -> "Machine":
        """Inspects the machine and the user's cache. Raises ProviderError if ONNX Runtime is not installed."""
        available = tuple(name for name in AUTO_ORDER if is_available(PROVIDERS[name]))
        return cls(available, load(bundle), has_vnni())


@dataclass(frozen=True, slots=True)
class Choice:
    """One provider, precision and number of threads to try, and why it was chosen."""

    provider: str
    precision: str
    runtime: RuntimeOptions
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the caller asked for, as in Captioner's arguments."""

    provider: str = "auto"
    precision: str = "auto"
    batch_size: int = 32
    runtime: RuntimeOptions = RuntimeOptions()  # noqa: RUF009 - frozen


def select(bundle: Bundle, request: Request, machine: Machine | None = None) -> tuple[Choice, ...]:
    """Returns the choices to try, best first; empty if "auto" finds no provider.

    Whatever was asked for by name is kept, including threads other than 0. "auto" takes the fastest suitable
    measurement on this machine (for one image or for many, depending on the batch size). Without measurements it
    follows the documented order: each available provider of AUTO_ORDER, in the precision that is fastest on it by the
    bundle's own measurements. machine: None inspects this one if anything is "auto". Raises BundleError for a
    precision that the bundle does not have; it lists those it has.
    """
    if request.precision != "auto":
        bundle.graph("encoder", request.precision)
    if request.provider != "auto":
        request = replace(request, provider=canonical(request.provider))
    if "auto" not in (request.provider, request.precision):
        return (Choice(request.provider, request.precision, request.runtime, "asked for"),)
    machine = machine or Machine.here(bundle)
    tuned = _tuned(bundle.manifest, request, machine)
    names = machine.available if request.provider == "auto" else (request.provider,)
    default = [
        Choice(name, _default_precision(bundle.manifest, request, machine, name), request.runtime, "default order")
        for name in names
        if name not in {choice.provider for choice in tuned}
    ]
    ahead = _untried(machine, tuned, default)
    chosen = (*ahead, *tuned, *(choice for choice in default if choice not in ahead))
    return (*chosen, *_exact(request, chosen))


def open_first(choices: Sequence[Choice], start: Callable[[Choice], Opened]) -> tuple[Choice, Opened]:
    """Returns the first choice that starts and the result of `start`; warns about each earlier one that did not.

    Raises the last choice's ProviderError, or one that says there was no choice.
    """
    for i, choice in enumerate(choices):
        try:
            return choice, start(choice)
        except ProviderError as error:
            if choice is choices[-1]:
                raise
            following = f"{choices[i + 1].provider} in {choices[i + 1].precision}"
            warnings.warn(f"{error}; trying {following} next", RuntimeWarning, stacklevel=4)
    raise ProviderError("no provider is available, not even ONNX Runtime's CPU provider: reinstall onnxruntime")


def refused(manifest: Manifest, precision: str, vnni: bool | None, *, measured: bool = False) -> str:
    """Returns why "auto" may not choose a precision; "" if it may.

    measured: it was compared with fp32 on this machine. That is enough for an unknown processor, but not for one that
    is known to compute it wrongly.
    """
    if precision == "fp32":
        return ""
    exact, variant = manifest.variants.get("fp32"), manifest.variants.get(precision)
    if exact is None or variant is None or exact.cider is None or variant.cider is None:
        return "the bundle does not state its CIDEr"
    if not variant.cider >= exact.cider - CIDER_LOSS - 1e-9:  # NaN too
        return f"its CIDEr is {exact.cider - variant.cider:.3f} below fp32's"
    if precision.startswith("int8") and variant.record.get("weight_bits") not in range(1, 8) and not vnni:
        if vnni is False:
            return "8-bit weights overflow on this processor, which lacks VNNI"
        if not measured:
            return "8-bit weights might overflow on this processor"
    return ""


def _tuned(manifest: Manifest, request: Request, machine: Machine) -> list[Choice]:
    """Returns each provider's fastest measured configuration that suits the request, fastest first."""
    if machine.measurements is None:
        return []
    many = request.batch_size >= THROUGHPUT_FROM
    fastest: dict[str, Choice] = {}
    for timing in sorted(
        machine.measurements.timings, key=lambda timing: timing.throughput if many else timing.latency
    ):
        asked = timing.precision == request.precision
        if request.provider not in ("auto", timing.provider) or timing.provider in fastest:
            continue
        if asked or (
            request.precision == "auto" and not refused(manifest, timing.precision, machine.vnni, measured=True)
        ):
            runtime = request.runtime if request.runtime.threads else replace(request.runtime, threads=timing.threads)
            why = f"tuned on {machine.measurements.date} for {'many images at once' if many else 'one image'}"
            fastest[timing.provider] = Choice(timing.provider, timing.precision, runtime, why)
    return list(fastest.values())


def _untried(machine: Machine, tuned: Sequence[Choice], default: Sequence[Choice]) -> list[Choice]:
    """Returns the default choices that go before the measured ones: preferred providers that were never tried."""
    if machine.measurements is None or not tuned:
        return []
    tried = {*machine.measurements.tried, *(timing.provider for timing in machine.measurements.timings)}
    order = machine.available
    before = order[: order.index(tuned[0].provider)] if tuned[0].provider in order else order
    return [choice for choice in default if choice.provider in before and choice.provider not in tried]


def _exact(request: Request, chosen: Sequence[Choice]) -> Iterator[Choice]:
    """Yields fp32 on each provider for which another precision was chosen, in case that one fails its check here."""
    if request.precision == "auto":
        for provider in dict.fromkeys(choice.provider for choice in chosen):
            if not any((choice.provider, choice.precision) == (provider, "fp32") for choice in chosen):
                yield Choice(provider, "fp32", request.runtime, AS_EXACT)


def _default_precision(manifest: Manifest, request: Request, machine: Machine, provider: str) -> str:
    if request.precision != "auto":
        return request.precision
    speeds = {
        name: variant.images_per_second[provider]
        for name, variant in manifest.variants.items()
        if provider in variant.images_per_second and not refused(manifest, name, machine.vnni)
    }
    return max(speeds, key=speeds.__getitem__) if "fp32" in speeds else "fp32"
