"""A short run of the memory benchmark, in a process of its own: torch is in this one."""

import subprocess
import sys
from pathlib import Path

from benchmarks.memory import Sample, growth

ROOT = Path(__file__).parents[1]


def test_memory_stays_flat_however_many_images_pass(bundle: Path | None, tmp_path: Path) -> None:
    chart = tmp_path / "memory.png"
    sizes = "--images 240 --every 20 --warm-up 120"
    command = [sys.executable, "-m", "benchmarks.memory", *sizes.split(), "--chart", str(chart)]
    if bundle is not None:
        command += ["--bundle", str(bundle.resolve())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" MB, peak ") == 12
    assert chart.stat().st_size > 0


def test_growth_is_measured_from_the_peak_of_the_warm_up() -> None:
    samples = [Sample(100, 90, 100), Sample(200, 90, 120), Sample(300, 90, 150)]
    assert growth(samples, 200) == 0.25
