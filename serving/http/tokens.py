"""Bearer tokens: where they come from, and which are valid. Knows no requests."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from engine import OptionsError

TOKEN = "CAPTIONING_TOKEN"  # the environment variable
SPACE = b" \t"  # may surround a token
VISIBLE = re.compile(rb"[!-~]+")


def read_tokens(file: str | None = None) -> list[bytes]:
    """Returns the tokens, one per line of the file or else of the environment variable; none without either.

    Raises OptionsError if there is no token in it, or one that cannot be sent in a header.
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
        raise OptionsError(f"{where} holds no token: add one, or leave it out to let everybody in")
    check_tokens(tokens, where)
    return tokens


def check_tokens(tokens: Iterable[bytes], where: str = "tokens") -> None:
    """Raises OptionsError for a token with anything but visible ASCII characters; the error does not quote it."""
    for number, token in enumerate(tokens, 1):
        if not VISIBLE.fullmatch(token):
            told = "cannot be sent in a header: use ASCII letters, digits and punctuation, without spaces"
            raise OptionsError(f"token {number} of {where} {told}")
