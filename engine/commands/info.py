"""`python -m engine info`: shows what would run here, the versions, and the measured quality."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from engine.autotune.machine import versions
from engine.bundle.bundle import Bundle, shipped_bundles
from engine.captioner import Captioner
from engine.commands.arguments import add_json, add_model
from engine.commands.parser import Parser
from engine.runtime.providers import available_providers

SHOWN = "CIDEr", "BLEU-4"  # of a data set's scores; --json has all


def add(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser("info", help="show bundle, provider and versions", allow_abbrev=False)
    parser.set_defaults(command=run, interrupted="nothing shown")
    add_json(parser)
    parser.add_argument("--bundles", action="store_true", help="list the bundles that ship, by name, instead")
    add_model(parser)


def run(arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> int:
    """Prints what would run: bundle, provider, precision, sizes, versions, measured quality; or the bundles."""
    if arguments.bundles:
        return _list_bundles(as_json=arguments.json)
    captioner = captioner_factory(arguments.bundle, provider=arguments.provider, precision=arguments.precision)
    manifest = captioner.bundle.manifest
    facts: dict[str, Any] = {
        "bundle": str(captioner.bundle.path),
        "name": manifest.name,
        "provider": captioner.provider,
        "available": available_providers(),
        "precision": captioner.precision,
        "threads": captioner.choice.runtime.threads or "default",
        "chosen": captioner.choice.why,
        "precisions": sorted({graph.precision for graph in manifest.graphs}),
        "encoder": manifest.encoder,
        "image": asdict(manifest.image),
        "features": list(manifest.feature_shape),
        "state": {each.name: list(each.shape) for each in manifest.state},
        "context": {each.name: list(each.shape) for each in manifest.context},
        "vocabulary_size": manifest.vocabulary_size,
        "defaults": asdict(manifest.defaults),
        "versions": versions(),
        "quality": manifest.quality,
        "terms": {part: said["licence"] for part, said in manifest.provenance.items() if "licence" in said},
    }
    if arguments.json:
        print(json.dumps(facts))
    else:
        facts |= {"quality": _plain_quality(manifest.quality), "context": facts["context"] or "none"}
        print("\n".join(f"{name:<16} {_plain(value) or 'not stated'}" for name, value in facts.items()))
    return 0


def _list_bundles(*, as_json: bool) -> int:
    bundles = {name: Bundle.load(path).manifest for name, path in shipped_bundles().items()}
    facts = {
        name: {"bundle": manifest.name, "attention": bool(manifest.attention), "default": place == 0}
        for place, (name, manifest) in enumerate(bundles.items())
    }
    if as_json:
        print(json.dumps(facts))
        return 0
    width = max(map(len, facts), default=0)
    for name, said in facts.items():
        notes = [note for note, holds in (("the default", said["default"]), ("attention", said["attention"])) if holds]
        print(f"{name:<{width}} {said['bundle']}{''.join(f', {note}' for note in notes)}")
    return 0


def _plain_quality(quality: dict[str, Any]) -> str:
    """Returns the main scores as text, one line for each data set; other contents as they are."""
    if "scores" in quality:  # of one data set
        quality = {str(quality.get("data", "quality")): quality}
    if not all(isinstance(measured, dict) and "scores" in measured for measured in quality.values()):
        return _plain(quality)
    return f"\n{'':<16} ".join(
        f"{name}, {measured.get('images', '?')} images, {measured.get('precision', '?')}: "
        + _plain({score: measured["scores"][score] for score in SHOWN if score in measured["scores"]})
        for name, measured in quality.items()
    )


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
