"""Addresses of servers that hold an index. Knows no server."""

import re

SERVERS = ("postgresql://", "postgres://")
"""What they begin with."""


def place_for_people(place: str) -> str:
    """Returns a place without the password that the address of a server may have in it, or in its options."""
    if not place.startswith(SERVERS):
        return place
    scheme, rest = place.split("://", 1)
    if "@" in (address := rest.split("?")[0]):
        address = f"{re.split('[:/@]', address)[0]}@{address.rpartition('@')[2]}"
    return f"{scheme}://{address}"
