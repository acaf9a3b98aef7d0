"""`python -m engine search`: prints the photographs that fit a query. Owns the arguments and the output."""

import argparse
import json
import sys
import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path

from engine.captioner import Captioner
from engine.commands.arguments import add_model
from engine.commands.index import DEFAULT
from engine.commands.lines import near, one_line
from engine.commands.parser import Parser, whole
from engine.runtime.options import RuntimeOptions
from engine.search.gallery import write_gallery
from engine.search.photo_index import MOST, PhotoIndex


def add(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "search",
        help="find indexed photographs by words",
        description="Finds photographs of an index that `index` made, and prints their paths and captions, best first.",
        epilog="Exit code: 0 found, 1 nothing found, 2 wrong usage or no index.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=run, interrupted="nothing was found yet")
    option = parser.add_argument
    option("query", nargs="?", metavar="QUERY", help='what the photograph shows, such as "two dogs on the beach"')
    option("--like", metavar="FILE", help="find photographs that are like this one, instead")
    option("--index", metavar="FILE", help=f"file of the index, or a postgresql:// address; {DEFAULT}")
    option("--limit", type=whole(1, MOST), default=20, metavar="N", help="most photographs (default: %(default)s)")
    option("--json", action="store_true", help="print one JSON object per line")
    option("--html", type=Path, metavar="FILE", help="write a page with the photographs, in one file")
    option("--open", action="store_true", help="show the page in a browser")
    option("--threads", type=int, default=0, metavar="N", help="CPU threads; 0, the default, is one for each core")
    add_model(parser)


def run(arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> int:
    """Prints a line for each photograph."""
    if (arguments.query is None) == (arguments.like is None):
        print("error: give a QUERY or --like FILE; see `python -m engine search --help`", file=sys.stderr)
        return 2
    captioner = captioner_factory(
        arguments.bundle,
        provider=arguments.provider,
        precision=arguments.precision,
        runtime=RuntimeOptions(threads=arguments.threads),
    )
    with PhotoIndex(arguments.index, captioner) as index:
        if arguments.like is None:
            query = arguments.query.encode(errors="replace").decode()
            results = index.search(query, arguments.limit)
            title = f"Photographs of {query}"
        else:
            results = index.similar(arguments.like, arguments.limit)
            title = f"Photographs like {arguments.like}"
    for found in results:
        photo = found.photo
        if arguments.json:
            print(json.dumps({"score": round(found.score, 4), **photo.as_json()}, ensure_ascii=False))
        else:
            print(f"{one_line(near(photo.path))}\t{photo.text}")
    if arguments.html or arguments.open:
        page = arguments.html or Path(tempfile.mkdtemp(prefix="captioning-engine-")) / "found.html"
        write_gallery(page, title, results)
        if arguments.open:
            webbrowser.open(page.absolute().as_uri())
    if results.left_out:
        print(
            f"{results.left_out:,} photographs were not searched, since another bundle captioned them: run `index` "
            "again",
            file=sys.stderr,
        )
    if not results:
        print("no photograph was found", file=sys.stderr)
    return 0 if results else 1
