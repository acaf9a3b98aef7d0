"""Each decoding option is declared once, and known wherever a caption can be asked for.

`python -m tests.test_options_everywhere` writes the table of docs/decoding.md.
"""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import DEFAULT_DECODING, Beam, Captioner, Greedy, OptionsError, Sample, Scheduler, decoding_options
from engine.commands.decoding import add_decoding, decoding_flags, decoding_of
from serving import decoding_options as services

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "decoding.md"
WAYS: tuple[Any, ...] = (Greedy, Beam, Sample)
OPTIONS = {option.name: option for option in decoding_options()}
CASES = [(way, name) for name, option in OPTIONS.items() for way in option.ways]
VALUES: dict[type, tuple[str, Any]] = {int: ("1", 1), float: ("0.5", 0.5), str: ("a", "a"), tuple: ("dog", ("dog",))}


def value_of(name: str) -> tuple[str, Any]:
    """Returns a value as text and as Python has it."""
    choices = OPTIONS[name].choices
    return (choices[-1], choices[-1]) if choices else VALUES[OPTIONS[name].kind]


def table() -> str:
    """Returns the options as a table in Markdown."""
    rows = ["| option | of | takes | left out | what it does |", "|---|---|---|---|---|"]
    for option in decoding_options():
        ways = "all" if len(option.ways) == len(WAYS) else ", ".join(f"`{way.__name__}`" for way in option.ways)
        cells = (f"`{option.name}`", ways, option.rule, services.left_out(option), option.help)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


@pytest.mark.parametrize("way", WAYS)
def test_the_table_is_what_the_constructors_take(way: Any) -> None:
    mine = [option for option in OPTIONS.values() if way in option.ways]
    assert list(inspect.signature(way).parameters) == [option.name for option in mine]
    for option in mine:
        assert getattr(way(), option.name) == option.default
        assert (option.default is None) == bool(option.left_out), option.name
        for bound, beyond in ((option.least, -1), (option.most, 1)):
            if bound is not None:
                assert not option.takes(bound + beyond)
                with pytest.raises(OptionsError, match=re.escape(option.rule)):
                    way(**{option.name: bound + beyond})
                assert option.takes(bound) is not (option.above_least and beyond < 0)


@pytest.mark.parametrize(("way", "name"), CASES)
def test_the_command_line_knows_every_option(way: Any, name: str) -> None:
    parser = argparse.ArgumentParser()
    add_decoding(parser)
    (flag,) = [flag for flag, options in decoding_flags().items() if OPTIONS[name] in options]
    text, value = value_of(name)
    chosen = {Greedy: ["--greedy"], Beam: [], Sample: ["--sample"]}[way]
    assert decoding_of(parser.parse_args([*chosen, flag, text])) == way(**{name: value})


@pytest.mark.parametrize(("way", "name"), CASES)
def test_http_knows_every_option(way: Any, name: str) -> None:
    text, value = value_of(name)
    assert services.read_decoding([("decoding", way.__name__.lower()), (name, text)]) == way(**{name: value})
    assert name in services.schemas(256)


@pytest.mark.parametrize(("way", "name"), CASES)
def test_ray_knows_every_option(way: Any, name: str) -> None:
    pytest.importorskip("ray")
    from serving import ray_data

    text, value = value_of(name)
    arguments = ["photographs", "captions", "--decoding", way.__name__.lower(), f"--{name.replace('_', '-')}", text]
    assert ray_data.job_of(ray_data.command_line().parse_args(arguments)).decoding == way(**{name: value})


@pytest.mark.parametrize(("way", "name"), CASES)
def test_triton_knows_every_option(way: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", SimpleNamespace())
    from serving.triton import model

    text, value = value_of(name)
    given = text if OPTIONS[name].kind is tuple else value
    parameters = json.dumps({"decoding": way.__name__.lower(), name: given})
    assert services.make_decoding(json.loads(parameters), model.value_of) == way(**{name: value})


def test_the_page_knows_every_option_and_offers_what_the_engine_takes() -> None:
    from serving.http.page_options import fill

    folder = ROOT / "serving" / "http" / "page"
    inputs: dict[str, dict[str, str | None]] = {}

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag in ("input", "select") and (name := dict(attrs).get("name")):
                inputs[name] = dict(attrs)

    page = fill((folder / "index.html").read_text(encoding="utf-8"), max_rows=4)
    Reader().feed(page)
    assert "<!-- options" not in page
    assert OPTIONS.keys() - inputs.keys() == {"num_hypotheses"}
    assert 'query.set("num_hypotheses"' in (folder / "page.js").read_text(encoding="utf-8")
    for name, attributes in inputs.items():
        if attributes.get("type") in ("range", "number"):
            for bound in ("min", "max", "value"):
                value = attributes.get(bound)
                assert not value or OPTIONS[name].takes(OPTIONS[name].kind(value)) or OPTIONS[name].above_least
    assert inputs["beam_size"]["max"] == inputs["num_samples"]["max"] == "4"  # there are no more rows


def test_the_documentation_shows_the_table() -> None:
    assert table() in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "method",
    [
        Captioner.caption,
        Captioner.iter_captions,
        Captioner.caption_features,
        Scheduler.submit,
        Scheduler.caption,
        Scheduler.stream,
    ],
)
def test_python_decodes_as_the_bundle_says_unless_told_otherwise(method: Callable[..., Any]) -> None:
    assert inspect.signature(method).parameters["decoding"].default == DEFAULT_DECODING == Beam()


def test_services_and_the_command_line_decode_so_too() -> None:
    parser = argparse.ArgumentParser()
    add_decoding(parser)
    assert decoding_of(parser.parse_args([])) == DEFAULT_DECODING
    assert services.read_decoding([]) == services.make_decoding({}) == DEFAULT_DECODING
    assert services.schemas(256)["decoding"]["default"] == services.DEFAULT


if __name__ == "__main__":
    head, _, rest = DOCUMENT.read_text(encoding="utf-8").partition("| option |")
    DOCUMENT.write_text(f"{head}{table()}\n\n{rest.partition(chr(10) * 2)[2]}", encoding="utf-8")
