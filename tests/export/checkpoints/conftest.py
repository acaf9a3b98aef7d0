from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from export.checkpoints.imported import Imported
from export.checkpoints.layouts import LAYOUTS
from tests.export.checkpoints.cases import CASES, Case


@dataclass(frozen=True)
class Read:
    """A case and what its files were read into."""

    case: Case
    imported: Imported


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Read]:
    """Writes the files of a case of CASES and reads them, once per session."""

    @cache
    def read(kind: str) -> Read:
        folder: Path = tmp_path_factory.mktemp("checkpoint")
        case = CASES[kind](folder)
        return Read(case, LAYOUTS[case.layout](case.source))

    return read
