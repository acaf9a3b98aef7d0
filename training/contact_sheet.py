"""The picture command: python -m training.contact_sheet CAPTIONS [NEW] --images FOLDER --output SHEET.jpg.

Draws photographs in a grid, each with its caption below it, or with the captions of two bundles. Computes no scores.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from engine.commands.parser import Parser, existing_file, existing_folder, whole
from engine.errors import ImageError
from training.files import check_outputs, write_atomically
from training.metrics.java import MetricsError
from training.metrics.results import image_id
from training.outcome import outcome
from training.reports.thumbnails import shrink

SIZE, GAP, LINE = (400, 280), 24, 28  # pixels: the space for a photograph, between two of them, for a line of text
BLACK, GREY = (28, 28, 26), (110, 108, 104)
FONTS = {BLACK: ImageFont.load_default(22), GREY: ImageFont.load_default(19)}

Colour = tuple[int, int, int]
Said = tuple[str, float]
"""A caption and its confidence, NaN if the file has none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 130 after Ctrl-C."""
    parser = _parser()
    given = parser.parse_args(arguments)
    check_outputs(parser, given, "--output")
    return outcome(lambda: _run(given), MetricsError, ImageError)


def _run(given: argparse.Namespace) -> None:
    files = [read_captions(path) for path in (given.captions, given.new) if path is not None]
    photographs = {image_id(path.name): path for path in given.images.iterdir()}
    shown = [name for name in files[0] if name in photographs and all(name in file for file in files)]
    if not shown:
        raise MetricsError(f"no photograph in {given.images} has a caption in each file: names must be the same")
    cells = [(shrink(photographs[name].read_bytes(), max(SIZE)), [file[name] for file in files]) for name in shown]
    kind = "PNG" if given.output.suffix.lower() == ".png" else "JPEG"
    draw(cells, given.columns).save(content := BytesIO(), kind, quality=85, optimize=True)
    write_atomically(given.output, content.getvalue())
    print(f"{len(shown):,} photographs drawn in {given.output}")


def read_captions(path: Path) -> dict[int | str, Said]:
    """Reads captions by image: JSON lines of `engine caption --json`, or a result file of `training.evaluate`.

    Images without a caption are left out. Raises MetricsError if the file is neither, and OSError.
    """
    found = {}
    try:
        content = path.read_text(encoding="utf-8")
        for row in json.loads(content) if content.startswith("[") else map(json.loads, content.splitlines()):
            match row:
                case {"image_id": int() | str() as name, "caption": str() as caption}:
                    found[name] = caption, math.nan
                case {"image": str() as name, "text": str() as caption, "confidence": confidence}:
                    found[image_id(Path(name).name)] = caption, math.nan if confidence is None else float(confidence)
                case {"image": str()}:  # it could not be read, or its caption was too doubtful
                    continue
                case _:
                    raise ValueError
    except (ValueError, TypeError) as error:
        kinds = "the lines of `engine caption --json` or a file of `training.evaluate --results-out`"
        raise MetricsError(f"{path} cannot be read as captions: it must contain {kinds}") from error
    return found


def draw(cells: Sequence[tuple[Image.Image, Sequence[Said]]], columns: int) -> Image.Image:
    """Returns photographs in rows, each with its captions below it: the last one in black, others in grey."""
    texts = [[line for i, one in enumerate(said) for line in lines(one, i == len(said) - 1)] for _, said in cells]
    rows = [range(start, min(start + columns, len(cells))) for start in range(0, len(cells), columns)]
    heights = [SIZE[1] + GAP + LINE * max(len(texts[i]) for i in row) + GAP for row in rows]
    wide = min(columns, len(cells))
    sheet = Image.new("RGB", (wide * (SIZE[0] + GAP) + GAP, sum(heights) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for row, top in zip(rows, (GAP + sum(heights[:i]) for i in range(len(rows))), strict=True):
        for column, i in enumerate(row):
            left = GAP + column * (SIZE[0] + GAP)
            sheet.paste(ImageOps.pad(cells[i][0], SIZE, color=(240, 239, 236)), (left, top))
            for place, (text, colour) in enumerate(texts[i]):
                pen.text((left, top + SIZE[1] + GAP // 2 + place * LINE), text, colour, FONTS[colour])
    return sheet


def lines(said: Said, newest: bool) -> list[tuple[str, Colour]]:
    """Returns a caption in lines that are no wider than a photograph, then its confidence if it has one."""
    (caption, confidence), colour = said, BLACK if newest else GREY
    found: list[str] = []
    for word in caption.split():
        if found and FONTS[colour].getlength(f"{found[-1]} {word}") <= SIZE[0]:
            found[-1] += f" {word}"
        else:
            found.append(word)
    known = [] if math.isnan(confidence) else [(f"confidence {confidence:.2f}", GREY)]
    return [*((line, colour) for line in found), *known]


def _parser() -> Parser:
    parser = Parser(
        prog="python -m training.contact_sheet",
        description="Draws photographs with their captions, or with those of two bundles, the second below the first.",
    )
    kinds = "lines of `engine caption --json`, or a file of `training.evaluate --results-out`"
    captions = existing_file(kinds)
    parser.add_argument("captions", type=captions, help=f"captions: {kinds}")
    parser.add_argument("new", type=captions, nargs="?", help="captions of another bundle, to be drawn below them")
    parser.add_argument(
        "--images", type=existing_folder("a folder of photographs"), required=True, help="folder of the photographs"
    )
    parser.add_argument("--output", type=Path, required=True, help="picture to write: .png, otherwise JPEG")
    columns = "photographs side by side (default: 3)"
    parser.add_argument("--columns", type=whole(1, 10), default=3, metavar="N", help=columns)
    return parser


if __name__ == "__main__":
    sys.exit(main())
