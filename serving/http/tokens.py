"""Bearer tokens: where they come from. Knows no requests."""

import os
from pathlib import Path

from engine import OptionsError

TOKEN = "CAPTIONING_TOKEN"  # the environment variable


def read_tokens(file: str | None = None) -> list[bytes]:
    """Returns the tokens, one a line of the file or of the environment's variable; none without either.

    Raises OptionsError where there is no token in what was given.
    """
    where = f"the file {file}" if file else f"the variable {TOKEN}"
    if file is None and TOKEN not in os.environ:
        return []
    try:
        text = Path(file).read_bytes() if file else os.environb[TOKEN.encode()]
    except OSError as error:
        raise OptionsError(f"--token-file: {where} cannot be read ({error.strerror})") from error
    tokens = [line.strip() for line in text.splitlines() if line.strip()]
    if not tokens:
        raise OptionsError(f"{where} holds no token: write one, or do without to let everybody in")
    return tokens
