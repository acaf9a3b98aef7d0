"""The command `python -m export.import_checkpoint`: makes a bundle of a captioner that another project trained."""

import argparse
import re
import sys
from pathlib import Path

from engine.commands.parser import Parser
from engine.errors import EngineError
from export.checkpoints.imported import Imported, Source
from export.checkpoints.layouts import LAYOUTS
from export.errors import ExportError
from export.verify import table
from training.outcome import outcome


def _parser() -> Parser:
    parser = Parser(prog="python -m export.import_checkpoint", description=__doc__)
    parser.add_argument("--from", dest="layout", choices=tuple(LAYOUTS), required=True, help="whose project it is")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the trained model (yunjey: the decoder)")
    parser.add_argument(
        "--vocabulary", type=Path, required=True, help="the words: vocab.pkl, WORDMAP.json, infos.pkl or the tokenizer"
    )
    parser.add_argument(
        "--encoder-weights",
        metavar="FILE",
        help="the weights of the network that sees, where the checkpoint has none; "
        "'random' for untrained ones, to try the command",
    )
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="which network that is, where files do not tell: vgg16 or inception_v3 of Keras",
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="HEIGHTxWIDTH",
        help="to what size photographs are stretched (default: the project's)",
    )
    parser.add_argument("--output", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--name", help="the bundle's name (default: the folder's)")
    parser.add_argument("--precision", default="fp32", help="which to write, such as fp32,fp16 (fp32)")
    parser.add_argument(
        "--calibration",
        type=Path,
        action="append",
        default=[],
        help="for int8: a folder of photographs; can be repeated",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code. On 1, standard error says why nothing was written."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        source = Source(given.checkpoint, given.vocabulary, given.encoder_weights, given.encoder, given.size)
        read = LAYOUTS[given.layout](source)
        print(f"read {read.origin}, {len(read.words.words)} words")
        write(read, given)

    return outcome(work, ExportError, EngineError, interrupted=lambda: f"{given.output} is unchanged")


def write(read: Imported, given: argparse.Namespace) -> None:
    """Exports what was read to the bundle that was asked for."""
    from export.modules import ExportOptions, export_modules
    from export.variants import VariantOptions

    options = ExportOptions(
        name=given.name or given.output.name,
        provenance={"decoder": {"source": read.origin}},
        variants=VariantOptions(precisions=tuple(given.precision.split(",")), calibration=tuple(given.calibration)),
    )
    vocabulary = read.words.vocabulary()
    checks = export_modules(
        read.encoder, read.decoder, vocabulary, read.image, given.output, options, overwrite=given.overwrite
    )
    print(table(checks))
    print(f"wrote {given.output}")


def _size(text: str) -> tuple[int, int]:
    if not (found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise argparse.ArgumentTypeError("give height and width in pixels, such as 480x640")
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    sys.exit(main())
