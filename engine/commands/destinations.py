"""Where `caption` puts captions besides standard output, and which of its flags go together."""

import argparse
import re
from functools import partial
from pathlib import Path
from typing import Protocol

from engine.attention import require_attention
from engine.captioner import Captioner
from engine.commands.arguments import flag_of
from engine.commands.attention_page import AttentionPage
from engine.commands.parser import existing_folder
from engine.errors import OptionsError
from engine.images.formats import FORMATS, check_formats, image_suffixes
from engine.images.load import load_for_model
from engine.result import Caption
from engine.writing.sidecars import Sidecars

NEEDED = {"overwrite": "--xmp", "language": "--xmp", "dry_run": "--alt-text", "fill_empty": "--alt-text"}
NOT_BESIDE_ALT_TEXT = {
    "paths": "PATH, since it finds the pictures of the pages itself",
    "json": "--json",
    "xmp": "--xmp",
    "attention": "--attention",
    "alternatives": "--alternatives",
}
LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")


class Destination(Protocol):
    """Takes the captions that are good enough, one after the other."""

    def add(self, name: str, caption: Caption) -> None:
        """Takes the caption of the image of this path."""

    def close(self) -> None:
        """Is called when no more come."""


def add_destinations(parser: argparse.ArgumentParser) -> None:
    """Adds their flags."""
    option = parser.add_argument_group("where captions are written", "Besides standard output.").add_argument
    option(
        "--attention", type=Path, metavar="FILE", help="write a page that shows where the model looked for each word"
    )
    option("--xmp", action="store_true", help="write each caption to the photograph's XMP sidecar, as its description")
    option("--overwrite", action="store_true", help="with --xmp: replace descriptions that are there")
    option("--language", type=_language, metavar="TAG", help="with --xmp: the captions' language; default: en")
    option(
        "--alt-text",
        type=existing_folder("a folder of HTML or Markdown files"),
        metavar="FOLDER",
        help="caption the pictures on the pages of a site, and write the alt texts that are missing; takes no PATH",
    )
    option("--dry-run", action="store_true", help="with --alt-text: print the changes as a diff and write nothing")
    option(
        "--fill-empty",
        action="store_true",
        help='with --alt-text: also fill alt="", which says that a picture is decorative',
    )


def check_destinations(arguments: argparse.Namespace) -> None:
    """Raises OptionsError if flags do not go together."""
    for name, needed in NEEDED.items():
        if getattr(arguments, name) and not getattr(arguments, needed.strip("-").replace("-", "_")):
            raise OptionsError(f"{flag_of(name)} needs {needed}")
    if arguments.alt_text is None:
        if not arguments.paths:
            raise OptionsError("name at least one PATH: a file, a folder or a glob pattern")
        return
    for name, what in NOT_BESIDE_ALT_TEXT.items():
        if getattr(arguments, name):
            raise OptionsError(f"--alt-text cannot be used with {what}")


def suffixes_of(arguments: argparse.Namespace) -> frozenset[str]:
    """Returns the suffixes of files that are images. Raises OptionsError."""
    return image_suffixes(check_formats(arguments.formats or FORMATS))


def sidecars_of(arguments: argparse.Namespace) -> Sidecars | None:
    """Returns what --xmp asks for."""
    if not arguments.xmp:
        return None
    return Sidecars(arguments.language or "en", arguments.overwrite, suffixes_of(arguments))


def page_of(path: Path | None, captioner: Captioner) -> AttentionPage | None:
    """Opens the page of --attention. Raises OptionsError if the model has none or the file cannot be written."""
    if path is None:
        return None
    manifest = captioner.bundle.manifest
    require_attention(manifest)
    if path.is_dir() or not path.parent.is_dir():
        raise OptionsError(f"--attention must be a file in a folder that exists, but it is {path}")
    image, most, formats = manifest.image, captioner.max_pixels, captioner.formats
    load = partial(load_for_model, image=image, max_pixels=most, formats=formats)
    return AttentionPage(path, image.resize, load, f"Where {manifest.name} looked")


def _language(text: str) -> str:
    if not LANGUAGE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be a language tag such as en or pt-BR, but it is {text!r}")
    return text
