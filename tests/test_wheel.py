"""The wheel as a stranger gets it: built from the sources, installed alone, captioning with the bundle inside."""

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAMPLES = sorted((ROOT / "samples").glob("*.jpg"))
SOURCES = ("engine", "export", "training", "serving", "pyproject.toml", "README.md", "LICENSE")
LEFT_OUT = {"torch", "onnx", "torchvision", "timm"}  # what the engine must do without


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command without what this environment could lend it; returns what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:  # a copy: building leaves files beside the sources
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", ".", cwd=folder)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a fresh virtual environment with the wheel and one extra; returns its Python."""

    def install(extra: str) -> Path:
        folder = tmp_path_factory.mktemp(f"environment-{extra}")
        run(sys.executable, "-m", "venv", folder, cwd=folder)
        python = folder / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", "--no-compile", f"{wheel}[{extra}]", cwd=folder)
        return python

    return install


def captions(python: Path, provider: str, empty: Path) -> list[str]:
    """Captions the samples from an empty folder, in fp32: auto's precision is another on each provider."""
    ways = ("--provider", provider, "--precision", "fp32")
    return run(python, "-m", "engine", "caption", *SAMPLES, *ways, cwd=empty).splitlines()


def test_the_wheel_holds_the_engine_with_its_bundle_and_demands_little(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        demands = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist", [])
        manifests = [name for name in names if Path(name).match("engine/models/*/manifest.json")]
        described = {Path(name).parent: json.loads(archive.read(name)) for name in manifests}
    sources = {
        path.relative_to(ROOT).as_posix() for part in ("engine", "serving") for path in (ROOT / part).rglob("*.py")
    }
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving" / "http" / "page").iterdir()}
    assert sources | {"engine/py.typed"} | page <= names
    assert {name.split("/")[0] for name in names} == {"engine", "export", "serving", "training", metadata.split("/")[0]}
    assert {bundle.name for bundle in described} == {"everyday", "everyday-attention"}
    for bundle, manifest in described.items():
        listed = {graph["file"] for graph in manifest["graphs"]} | manifest["data_sha256"].keys() | {"vocabulary.json"}
        assert {(bundle / name).as_posix() for name in listed} <= names
        assert sum(path.stat().st_size for path in (ROOT / bundle).iterdir()) <= 45 * 2**20
    always = {demand.split(">")[0] for demand in demands if "extra ==" not in demand}
    assert always == {"numpy", "Pillow"}


def test_the_installed_wheel_captions_a_sample_with_neither_torch_nor_onnx(
    installed: Callable[[str], Path], tmp_path: Path
) -> None:
    python = installed("cpu")
    find = f"import importlib.util as u; print([name for name in {sorted(LEFT_OUT)} if u.find_spec(name)])"
    assert run(python, "-c", find, cwd=tmp_path) == "[]\n"
    lines = captions(python, "cpu", tmp_path)
    assert [line.split("\t")[0] for line in lines] == [str(path) for path in SAMPLES]
    assert all(len(line.split("\t")[1].split()) >= 3 for line in lines)
    facts = json.loads(run(python, "-m", "engine", "info", "--json", cwd=tmp_path))
    assert Path(facts["bundle"]).is_relative_to(python.parents[1])
    assert facts["versions"]["engine"] != "not installed"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="onnxruntime-openvino is for x86 Linux here"
)
def test_openvino_of_the_installed_wheel_says_what_the_cpu_says(
    installed: Callable[[str], Path], tmp_path: Path
) -> None:
    python = installed("openvino-x86")
    assert captions(python, "openvino", tmp_path) == captions(python, "cpu", tmp_path)
