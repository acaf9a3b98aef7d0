"""Addresses of servers that hold an index. Knows no server."""

import re

SERVERS = ("postgresql://", "postgres://")
"""What they begin with."""


def place_for_people(place: str) -> str:
    """Returns a place without the password that the address of a server may have in it, or in its options."""
    if not place.startswith(SERVERS):
        return place
    scheme, rest = place.split("://", 1)
    before, at, after = rest.partition("@") if re.match("[^/@]*@", rest) else ("", "", rest)  # a password may have a ?
    return f"{scheme}://{re.split('[:?]', before)[0]}{at}{after.split('?')[0].rpartition('@')[2]}"
