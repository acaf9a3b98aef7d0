"""Bearer tokens: where they come from, and what can be one. Knows no requests."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from engine import OptionsError

TOKEN = "CAPTIONING_TOKEN"  # the environment variable
SPACE = b" \t"  # what may stand around a token
VISIBLE = re.compile(rb"[!-~]+")


def read_tokens(file: str | None = None) -> list[bytes]:
    """Returns the tokens, one a line of the file or of the environment's variable; none without either.

    Raises OptionsError where there is no token in what was given, or one that no header can hold.
    """
    where = f"the file {file}" if file else f"the variable {TOKEN}"
    if file is None and TOKEN not in os.environ:
        return []
    try:
        text = Path(file).read_bytes() if file else os.environb[TOKEN.encode()]
    except OSError as error:
        raise OptionsError(f"--token-file: {where} cannot be read ({error.strerror})") from error
    tokens = [line.strip(SPACE) for line in text.splitlines() if line.strip(SPACE)]
    if not tokens:
        raise OptionsError(f"{where} holds no token: write one, or do without to let everybody in")
    check_tokens(tokens, where)
    return tokens


def check_tokens(tokens: Iterable[bytes], where: str = "tokens") -> None:
    """Raises OptionsError, which does not quote it, for a token that is not of visible ASCII signs."""
    for number, token in enumerate(tokens, 1):
        if not VISIBLE.fullmatch(token):
            told = "cannot be sent in a header: use letters, digits and signs of ASCII, without spaces"
            raise OptionsError(f"token {number} of {where} {told}")
