"""docs/reliability.md names the tests that prove it: each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_fault_on_the_page_has_its_test() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in page.partition("## Faults")[2].splitlines() if row.startswith("|")]
    named = [re.findall("`([^`]+)`", row[3]) for row in rows[2:]]
    files = [file for folder in ("serving", "engine") for file in (ROOT / "tests" / folder).rglob("test_*.py")]
    tests = [test for file in files for test in (file.name, *re.findall(r"def (test_\w+)", file.read_text("utf-8")))]
    assert len(named) > 15
    for names in named:
        assert names
        for name in names:
            wanted = name.partition(" -k ")
            assert any((wanted[2] or wanted[0]) in test for test in tests), f"no test is called {name}"
