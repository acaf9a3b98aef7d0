"""`python -m serving.triton_repository OUTPUT`: writes a model repository for Triton. Needs no Triton.

A repository is OUTPUT/NAME/{config.pbtxt, warmup/photograph, 1/model.py, 1/bundle/ or 1/bundle.path}.
"""

import argparse
import io
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from engine import Captioner, EngineError, OptionsError, ProviderError
from serving.formats import as_argument, format_names
from serving.parser import Parser, explained
from serving.triton.config import WARMUP, Settings

MODEL = Path(__file__).parent / "triton" / "model.py"
WRITTEN = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "GIF",
    "PPM",
)  # of the warm-up image: the first allowed


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a repository, prints the new version's folder and returns 0; after an error, a sentence and 2."""
    arguments = vars(_parser().parse_args(argv))
    given = {field.name: arguments[field.name] for field in fields(Settings) if field.name in arguments}
    try:
        settings = _settings_of(arguments["output"], given) if arguments["add_version"] else Settings(**given)
        source = _bundle(arguments["bundle"], arguments["bundle_path"], settings)
        if arguments["add_version"]:
            print(add_version(arguments["output"], settings.name, source))
        else:
            print(write(arguments["output"], settings, source, overwrite=arguments["overwrite"]))
    except EngineError as error:
        print(f"error: {explained(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {arguments['output']} cannot be written: {error}", file=sys.stderr)
        return 2
    return 0


def write(output: Path, settings: Settings, bundle: Path | str, *, overwrite: bool = False) -> Path:
    """Writes a model with its version 1 into a repository, completely or not at all, and returns the version's folder.

    output: the repository, created if it is missing. bundle: a Path to a folder, which is copied, or a str, the path of
    the folder on the server. overwrite: replaces a model of that name with all its versions. Raises OptionsError,
    OSError.
    """
    target = output / settings.name
    if target.exists() and not overwrite:
        raise OptionsError(f"{target} exists: --overwrite replaces it, --add-version adds a version to it")
    photograph = _warmup(format_names(settings.formats or None))
    output.mkdir(parents=True, exist_ok=True)
    with _beside(output) as staged:
        model = staged / settings.name
        (model / "warmup").mkdir(parents=True)
        (model / "config.pbtxt").write_text(settings.text(), encoding="utf-8")
        (model / "warmup" / WARMUP).write_bytes(photograph)
        _write_version(model / "1", bundle)
        if target.exists():
            target.rename(staged / "replaced")
        try:
            model.rename(target)
        except OSError:
            with suppress(OSError):
                (staged / "replaced").rename(target)
            raise
    return target / "1"


def add_version(output: Path, name: str, bundle: Path | str) -> Path:
    """Writes the next version of a model, completely or not at all, and returns its folder. Raises as `write` does."""
    target = output / name
    _config(target)
    newest = max((int(each.name) for each in target.iterdir() if each.is_dir() and each.name.isdecimal()), default=0)
    with _beside(output) as staged:
        _write_version(staged / "version", bundle)
        (staged / "version").rename(target / str(newest + 1))
    return target / str(newest + 1)


def _config(model: Path) -> str:
    if not (model / "config.pbtxt").is_file():
        raise OptionsError(f"{model} is not a model: leave out --add-version to write one")
    return (model / "config.pbtxt").read_text(encoding="utf-8")


def _settings_of(output: Path, given: dict[str, Any]) -> Settings:
    """Returns the settings of the model that gets a version. Raises OptionsError if other settings are given."""
    for name in given.keys() - {"name"}:
        option = f"--{name.replace('_', '-')}"
        raise OptionsError(
            f"{option} with --add-version: a version has the settings of its model; leave out {option}, or write the "
            "model again with --overwrite"
        )
    name = Settings(**given).name
    return Settings.read(name, _config(output / name))


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """Makes a folder beside the repository: in it, a server that polls would take it for a model."""
    if os.path.ismount(output):
        raise OptionsError(f"{output} is a mount point, so nothing can be moved into place: name a folder inside it")
    whole = output.resolve()
    with tempfile.TemporaryDirectory(prefix=f".{whole.name}-", dir=whole.parent) as folder:
        yield Path(folder)


def _write_version(folder: Path, bundle: Path | str) -> None:
    folder.mkdir()
    shutil.copyfile(MODEL, folder / "model.py")
    if isinstance(bundle, Path):
        shutil.copytree(bundle, folder / "bundle", copy_function=shutil.copyfile)
    else:
        (folder / "bundle.path").write_text(f"{bundle}\n", encoding="utf-8")


def _warmup(formats: tuple[str, ...]) -> bytes:
    """Returns a grey photograph in the form of Triton's files for texts: its length in four bytes, then itself.

    It has a format that the model reads, because otherwise no version would become ready. Raises OptionsError.
    """
    written = next((name for name in WRITTEN if not formats or name in formats), None)
    if written is None:
        raise OptionsError(f"--formats {','.join(formats)}: the warm-up image needs one of {', '.join(WRITTEN)}")
    file = io.BytesIO()
    Image.new("RGB", (640, 480), (127, 127, 127)).save(file, written)
    return struct.pack("<I", len(file.getvalue())) + file.getvalue()


def _bundle(copied: str | None, named: str | None, settings: Settings) -> Path | str:
    """Returns the bundle to copy or the path to write down, after opening it if it is on this machine."""
    if named is not None and not PurePosixPath(named).is_absolute():
        raise OptionsError(f"--bundle-path {named}: must be an absolute path on the server")
    if named is not None and not Path(named).exists():
        print(f"note: {named} is not on this machine, so it was not opened", file=sys.stderr)
        return named
    folder = copied or named
    given: dict[str, Any] = {
        "batch_size": settings.max_batch_size,
        **as_argument(format_names(settings.formats or None)),
    }
    try:
        captioner = Captioner(folder, provider=settings.provider, precision=settings.precision, **given)
    except ProviderError as error:  # the server may have what this machine lacks
        captioner = Captioner(folder, provider="cpu", **given)
        print(f"note: {error}; the bundle was opened on cpu instead", file=sys.stderr)
    return named if named is not None else captioner.bundle.path


def _parser() -> Parser:
    parser = Parser(
        prog="python -m serving.triton_repository",
        description="Writes a model repository for NVIDIA Triton, with a model that captions photographs.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("output", type=Path, metavar="OUTPUT", help="the repository, created if it is missing")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--bundle", help="the bundle to copy into it (default: the one that ships)")
    where.add_argument("--bundle-path", help="write down this absolute path of a bundle on the server instead")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--overwrite", action="store_true", help="replace the model with all its versions")
    how.add_argument(
        "--add-version",
        action="store_true",
        help="add the bundle as the next version of the model, with the same settings",
    )
    for field in fields(Settings):
        text = f"{field.metadata['help']} (default: {field.default!r})"
        kind: Any = type(field.default)
        add(f"--{field.name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS, help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
