"""The inputs of the page, derived from the engine's options. Knows which get a slider, not what options do."""

from html import escape

from engine import DecodingOption
from serving.decoding_options import DECODINGS, DEFAULT, OPTIONS, left_out, ways_of

SLIDERS = {
    "beam_size": (1, 10, 1, 3),
    "length_penalty": (0, 4, 0.05, 0.7),
    "temperature": (0.1, 2, 0.1, 0.7),
    "num_samples": (1, 8, 1, 3),
}
"""Least, most, step and first value of each slider: the range worth trying, not all that the engine accepts."""
LABELS = {"num_samples": "Sentences"}
SET_BY_PAGE = ("num_hypotheses", "style")  # page.js asks for all sentences of a beam, in style "sentence"


def fill(page: str, max_rows: int) -> str:
    """Returns the page with inputs for the options in place of each comment `<!-- options: ... -->`.

    max_rows: most sentences that the service can decode at the same time.
    """
    ways = (
        f'<label><input type="radio" name="decoding" value="{name}"{" checked" if name == DEFAULT else ""}>'
        f"<span>{name.capitalize()}</span></label>"
        for name in DECODINGS
    )
    page = page.replace("<!-- options: decoding -->", "".join(ways))
    for group in ("shared", *DECODINGS):
        page = page.replace(f"<!-- options: {group} -->", _inputs(group, max_rows))
    return page


def _inputs(group: str, max_rows: int) -> str:
    """Returns the inputs for the options of one way of decoding, or for those that all share; sliders first."""
    taken = list(DECODINGS) if group == "shared" else [group]
    options = [each for each in OPTIONS.values() if ways_of(each) == taken and each.name not in SET_BY_PAGE]
    sliders = [_slider(each, max_rows) for each in options if each.name in SLIDERS]
    others = [f"<div>{_label(each)}{_input(each)}</div>" for each in options if each.name not in SLIDERS]
    return "".join(sliders) + (f'<div class="pair">{"".join(others)}</div>' if others else "")


def _label(option: DecodingOption, more: str = "") -> str:
    text = LABELS.get(option.name, option.name.replace("_", " ").capitalize())
    return f'<label for="{option.name}" title="{escape(option.help)}">{text}{more}</label>'


def _slider(option: DecodingOption, max_rows: int) -> str:
    least, most, step, value = SLIDERS[option.name]
    if option.counts_rows:
        most, value = min(most, max_rows), min(value, max_rows)
    named = f'id="{option.name}" name="{option.name}" type="range"'
    label = _label(option, f' <output for="{option.name}"></output>')
    return f'{label}<input {named} min="{least}" max="{most}" step="{step}" value="{value}">'


def _input(option: DecodingOption) -> str:
    named = f'id="{option.name}" name="{option.name}"'
    if option.choices:
        choices = "".join(f"<option>{escape(choice)}</option>" for choice in ("", *option.choices))
        return f"<select {named}>{choices}</select>"
    default = left_out(option).removeprefix("the bundle's ")  # there is little room
    hint = f'placeholder="{escape(default)}"'
    if option.kind in (str, tuple):
        return f'<input {named} type="text" {hint}>'
    limits = {"min": option.least, "max": option.most, "step": 1 if option.kind is int else "any"}
    written = " ".join(f'{name}="{limit}"' for name, limit in limits.items() if limit is not None)
    return (
        f'<input {named} type="number" inputmode="{"numeric" if option.kind is int else "decimal"}" {written} {hint}>'
    )
