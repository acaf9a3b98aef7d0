"""What "auto" means: which providers to try in which order, each in which precision, on how many threads.

Pure logic on a manifest and on what is known of the machine; starts and measures nothing, and never falls back in
silence: `open_first` warns of each choice that did not start.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from engine.autotune.cache_file import Answer, load
from engine.autotune.machine import has_vnni
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Manifest
from engine.errors import ProviderError
from engine.runtime.options import RuntimeOptions
from engine.runtime.placement import canonical
from engine.runtime.providers import AUTO_ORDER, PROVIDERS, is_available

CIDER_LOSS = 0.005  # most that a precision may cost for "auto" to take it
THROUGHPUT_FROM = 8  # images at once from which throughput counts; below, the latency of one
AS_EXACT = "the exact one, since no faster one starts"
Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of the machine: providers of the default order that are here; what was measured; has_vnni()."""

    available: tuple[str, ...]
    answer: Answer | None = None
    vnni: bool | None = None

    @classmethod
    def here(cls, bundle: Bundle) -> "Machine":
        """Looks around and into the user's cache. Raises ProviderError if ONNX Runtime is not installed."""
        available = tuple(name for name in AUTO_ORDER if is_available(PROVIDERS[name]))
        return cls(available, load(bundle), has_vnni())


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run, to be tried, and why it was chosen."""

    provider: str
    precision: str
    runtime: RuntimeOptions
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the caller asks for, as in Captioner's arguments."""

    provider: str = "auto"
    precision: str = "auto"
    batch_size: int = 32
    runtime: RuntimeOptions = RuntimeOptions()  # noqa: RUF009 - frozen


def select(bundle: Bundle, request: Request, machine: Machine | None = None) -> tuple[Choice, ...]:
    """Returns the choices to try, best first; empty where "auto" finds no provider.

    What was asked for by name stands, threads other than 0 too. What is "auto" was measured on this machine, the
    fastest that suits (for one image or for many, as the batch size says), or else follows the documented order: each
    provider of AUTO_ORDER that is here, in the precision that the bundle's own measurements call fastest on it.
    machine: None looks around, where anything is "auto". Raises BundleError for a precision that the bundle lacks,
    naming those there are.
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
    """Returns the first choice that starts, with what `start` made of it; warns of each before that did not.

    Raises ProviderError: the last choice's, or that there was none.
    """
    for i, choice in enumerate(choices):
        try:
            return choice, start(choice)
        except ProviderError as error:
            if choice is choices[-1]:
                raise
            following = f"{choices[i + 1].provider} in {choices[i + 1].precision}"
            warnings.warn(f"{error}; going on to {following}", RuntimeWarning, stacklevel=3)
    raise ProviderError("no provider runs here: ONNX Runtime offers not even its own cpu")


def refused(manifest: Manifest, precision: str, vnni: bool | None, *, measured: bool = False) -> str:
    """Returns why "auto" may not take a precision; nothing if it may.

    measured: it was compared with fp32 on this machine, which answers for an unknown processor but not for one that
    is known to compute it wrongly.
    """
    if precision == "fp32":
        return ""
    exact, variant = manifest.variants.get("fp32"), manifest.variants.get(precision)
    if exact is None or variant is None or exact.cider is None or variant.cider is None:
        return "the bundle states no CIDEr for it"
    if not variant.cider >= exact.cider - CIDER_LOSS - 1e-9:  # NaN too
        return f"its CIDEr is {exact.cider - variant.cider:.3f} below fp32's"
    if precision.startswith("int8") and variant.record.get("weight_bits") not in range(1, 8) and not vnni:
        if vnni is False:
            return "8-bit weights overflow on this processor, which lacks VNNI"
        if not measured:
            return "8-bit weights might overflow on this processor"
    return ""


def _tuned(manifest: Manifest, request: Request, machine: Machine) -> list[Choice]:
    """Returns each provider's fastest measured way that suits the request, fastest first."""
    if machine.answer is None:
        return []
    many = request.batch_size >= THROUGHPUT_FROM
    fastest: dict[str, Choice] = {}
    for timing in sorted(machine.answer.timings, key=lambda timing: timing.throughput if many else timing.latency):
        asked = timing.precision == request.precision
        if request.provider not in ("auto", timing.provider) or timing.provider in fastest:
            continue
        if asked or (
            request.precision == "auto" and not refused(manifest, timing.precision, machine.vnni, measured=True)
        ):
            runtime = request.runtime if request.runtime.threads else replace(request.runtime, threads=timing.threads)
            why = f"tuned on {machine.answer.date} for {'many images at once' if many else 'one image'}"
            fastest[timing.provider] = Choice(timing.provider, timing.precision, runtime, why)
    return list(fastest.values())


def _untried(machine: Machine, tuned: Sequence[Choice], default: Sequence[Choice]) -> list[Choice]:
    """Returns the default choices that stay before the tuned ones: providers that come first and nobody tried."""
    if machine.answer is None or not tuned:
        return []
    tried = {*machine.answer.tried, *(timing.provider for timing in machine.answer.timings)}
    order = machine.available
    before = order[: order.index(tuned[0].provider)] if tuned[0].provider in order else order
    return [choice for choice in default if choice.provider in before and choice.provider not in tried]


def _exact(request: Request, chosen: Sequence[Choice]) -> Iterator[Choice]:
    """Yields fp32 on each provider, where another precision was chosen: it may not be computed rightly here."""
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
