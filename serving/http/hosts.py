"""Which host names requests may use, and which web pages may send them, so that no site can misuse a browser.

A foreign name that points here for a while (DNS rebinding) shows in Host; a page of another site shows in Origin and
Sec-Fetch-Site. Callers that are not browsers send neither of these two, and pass.
"""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from serving.http.problems import Problem

ANY = "*"
PORTS = {"http": ":80", "https": ":443"}  # left out in addresses
OWN = {"same-origin", "none"}  # what a browser sends for the service's own page, and for its user


def names_for(address: str, allowed: list[str]) -> list[str] | None:
    """Returns the names for Hosts of a service that listens on an address: None if other machines can reach it.

    allowed: names that its operator gives; with any of them, only these.
    """
    near = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    return allowed if allowed or near else None


class Hosts:
    """The names of the service, besides localhost and IP addresses. None, or "*" among them, allows any name."""

    def __init__(self, names: Iterable[str] | None = None) -> None:
        given = None if names is None else set(names)
        self.all = given is None or ANY in given
        self._names = {_name(each) for each in given or ()} | {"localhost"}

    def check_host(self, headers: Headers) -> None:
        """Raises Problem if the request names another host."""
        host = headers.get("host")
        if self.all or host is None or (name := _name(host)) in self._names or _is_address(name):
            return
        told = f"{name!r} is not a name of this service: its operator can add one with --allowed-host"
        raise Problem("host", told)

    def check_site(self, headers: Headers) -> None:
        """Raises Problem for a request from a page of another site.

        Sec-Fetch-Site has priority: no page can set it, and it is right behind a proxy that changes Host.
        """
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        own = site in OWN if site is not None else origin is None or self._is_own(origin, headers.get("host", ""))
        if not own:
            raise Problem("cross-site", "a page of another site sent the request; only the service's own may")

    def _is_own(self, origin: str, host: str) -> bool:
        scheme, _, address = origin.lower().partition("://")
        port = PORTS.get(scheme, "")
        same = address.removesuffix(port) == host.lower().removesuffix(port)
        return bool(address) and (same or _name(address) in self._names - {"localhost"})


def _name(address: str) -> str:
    """Returns the host of "host:port" in the form for comparison; "" if there is none."""
    try:
        return (urlsplit(f"//{address}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
