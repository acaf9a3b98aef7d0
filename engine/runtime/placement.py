"""Where the two halves of a model run: the encoder's provider and the decoder's. Opens nothing."""

from dataclasses import dataclass

from engine.errors import ProviderError
from engine.runtime.providers import DECODERS, PROVIDERS, Provider, find_provider


@dataclass(frozen=True, slots=True)
class Placement:
    """The providers of one captioner. Users write "cuda", which implies a decoder provider, or "cuda+cpu"."""

    encoder: Provider
    decoder: Provider

    @classmethod
    def of(cls, name: str) -> "Placement":
        """Returns the placement with this name. Raises ProviderError for a provider that is unknown or unavailable."""
        encoder, _, decoder = canonical(name).partition("+")
        return cls(find_provider(encoder), find_provider(decoder or encoder))

    @property
    def name(self) -> str:
        """The name that `of` accepts: both providers if they differ."""
        return canonical(f"{self.encoder.name}+{self.decoder.name}")

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The providers, each once."""
        return tuple(dict.fromkeys((self.encoder, self.decoder)))

    def provider(self, graph: str) -> Provider:
        """Returns the provider that runs a graph."""
        return self.encoder if graph == "encoder" else self.decoder


def canonical(name: str) -> str:
    """Returns the canonical name of a placement: "openvino" is "openvino+cpu", and "cpu+cpu" is "cpu".

    Raises ProviderError for an unknown provider, and for a decoder provider that can only run encoders.
    """
    encoder, plus, decoder = name.partition("+") if isinstance(name, str) else (name, "", "")
    if "+" in decoder:
        raise ProviderError(f"provider {name!r} has too many parts: give one, or two as encoder+decoder (cuda+cpu)")
    for part in (encoder, decoder) if plus else (encoder,):
        if part not in PROVIDERS:
            raise ProviderError(
                f"provider {part!r} is unknown: choose auto, {', '.join(PROVIDERS)}, or two of them as encoder+decoder"
            )
    decoder = decoder or PROVIDERS[encoder].decoder
    if decoder not in DECODERS:
        raise ProviderError(
            f"provider {name!r} puts the decoder on {decoder}, which can only run encoders: "
            f"choose {' or '.join(f'{encoder}+{other}' for other in DECODERS)}"
        )
    return encoder if encoder == decoder else f"{encoder}+{decoder}"
