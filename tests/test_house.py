"""The rules of the house: who may import whom, what importing the engine loads, what the engine exports."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"engine", "export", "training", "serving", "examples", "benchmarks", "tests"}
# each package and the modules of ours it may import besides its own; a package name allows all of it
ALLOWED = {
    "engine": set(),
    "training": {
        "engine.bundle.vocabulary",
        "engine.images.load",
        "engine.bundle.manifest",
        "engine.commands.parser",  # all commands say alike what is wrong with a command line
        "engine.errors",
    },
    "training/evaluate.py": {"engine"},  # it measures the engine
    "training/tune_decoding.py": {"engine"},  # so do these
    "training/balance.py": {"engine", "engine.decoding.decode", "engine.decoding.step_model"},
    "training/calibrate.py": {"engine"},
    "training/confidence/scored_captions.py": {"engine"},
    "training/recipes/driver.py": {"engine.autotune.machine"},  # which processor a recipe ran on
    "training/models/bundle_encoder.py": {"engine.bundle.bundle"},  # the one that vectors are for
    "export": {
        "training.models.attention",
        "training.models.decoder",
        "training.models.checkpoint",
        "training.files",
        "training.outcome",
        "training.models.encoders",
        "engine.bundle.bundle",
        "engine.bundle.manifest",
        "engine.bundle.vocabulary",
        "engine.commands.parser",
        "engine.images.load",
        "engine.images.formats",
        "engine.errors",
    },
    "export/decode.py": {"engine"},  # it proves the engine equal to PyTorch
    "export/joint.py": {"engine.runtime.vectors", "training.models.joint"},  # so does this, and knows such runs
    "export/calibration.py": {"training.data.datasets"},  # the photographs that INT8 is calibrated on
    "export/measure.py": {
        "engine",
        "training.data.datasets",
        "training.evaluate",
        "training.metrics.scores",
    },  # what a precision is worth
    "serving": {"engine"},
    "examples": {"engine"},
    "examples/bring_your_own.py": {"export"},
}
# third-party modules that a package must never import
FORBIDDEN = {"engine": {"torch", "onnx", "torchvision", "timm", "tqdm", "matplotlib", "fastapi", "ray"}}


def imported_modules(file: Path) -> Iterator[str]:
    """Yields the dotted name of every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            assert node.module is not None
            yield node.module


def imported_names(file: Path) -> Iterator[str]:
    """Yields every module that a file imports, and whatever it imports from one, by its dotted name."""
    yield from imported_modules(file)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def given_names(file: Path) -> Iterator[str]:
    """Yields the names that a module gives outside of all blocks, each as often as it does."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(ALLOWED.keys() & PACKAGES))
def test_a_package_imports_only_what_it_may(package: str) -> None:
    faults = []
    for file in sources(package):
        allowed = {package} | ALLOWED[package] | ALLOWED.get(file.relative_to(ROOT).as_posix(), set())
        for module in imported_modules(file):
            ours = module.split(".")[0] in PACKAGES
            permitted = any(module == name or (module.startswith(f"{name}.")) for name in allowed)
            if (ours and not permitted) or module.split(".")[0] in FORBIDDEN.get(package, set()):
                faults.append(f"{file.relative_to(ROOT)} imports {module}")
    assert not faults


def test_no_modules_of_the_engine_import_each_other_in_a_circle() -> None:
    files = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in sources("engine")}
    # imports inside functions count too; "from engine.images import jpeg" names a module behind a package
    imports: dict[str, set[str]] = {name: files.keys() & set(imported_names(file)) for name, file in files.items()}
    while settled := [name for name, needed in imports.items() if not needed & imports.keys()]:
        for name in settled:
            del imports[name]
    assert not imports


@pytest.mark.parametrize("package", ["serving", "examples"])
def test_services_use_the_engines_public_names_only(package: str) -> None:
    inside = {name for file in sources(package) for name in imported_modules(file) if name.startswith("engine.")}
    assert inside == set()


def test_importing_the_engine_loads_neither_torch_nor_onnx_nor_onnxruntime() -> None:
    code = "import sys, engine; print(sorted({'torch', 'onnx', 'onnxruntime'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


LATER = {
    "asyncio",
    "cykooz_resizer",
    "email",
    "engine.cli",
    "engine.runtime.cuda.steps",
    "engine.scheduler",
    "engine.autotune.measure",
    "engine.warmup",
    "hashlib",
    "http",
    "importlib.metadata",
    "multiprocessing",
    "numpy.random",
    "numpy.testing",
    "ssl",
    "tempfile",
    "unittest",
}
"""What only some need, or nobody before the first caption."""


def test_importing_the_engine_loads_nothing_that_can_wait() -> None:
    code = f"""
import sys, numpy, PIL.Image
before = set(sys.modules)
import engine
print(sorted({LATER} & (sys.modules.keys() - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_that_are_imported_later_are_there_all_the_same() -> None:
    code = """
import engine
assert set(engine.__all__) <= set(dir(engine))
assert not hasattr(engine, "Schedule")
from engine import *
assert all(globals()[name] is getattr(engine, name) for name in engine.__all__)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_public_name_says_what_it_is() -> None:
    import engine

    # a dataclass without a docstring gets its own signature for one
    said = {name: getattr(engine, name).__doc__ or "" for name in engine.__all__}
    assert [name for name, text in said.items() if not text or text.startswith(f"{name}(")] == []


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_module_gives_a_name_twice(package: str) -> None:
    twice = {file: [name for name, n in Counter(given_names(file)).items() if n > 1] for file in sources(package)}
    assert not any(twice.values())
