"""By which names the service may be asked, and by whose pages: what keeps browsers from being used against it.

A name of a stranger's that leads here for a while (DNS rebinding) shows in Host, a page of another site in what its
browser says of it. Callers that are no browsers say neither, and pass.
"""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from serving.http.problems import Problem

ANY = "*"
PORTS = {"http": ":80", "https": ":443"}  # which addresses leave out
OWN = {"same-origin", "none"}  # what a browser says of the service's own page, and of its user


class Hosts:
    """The names of the service, besides localhost and every IP address. None, or "*" among them: any name will do."""

    def __init__(self, names: Iterable[str] | None = None) -> None:
        given = None if names is None else set(names)
        self.all = given is None or ANY in given
        self._names = {_name(each) for each in given or ()} | {"localhost"}

    def check_host(self, headers: Headers) -> None:
        """Raises Problem where the request names a host that the service is not."""
        host = headers.get("host")
        if self.all or host is None or (name := _name(host)) in self._names or _is_address(name):
            return
        told = f"{name!r} is no name of this service: who runs it can add one with --allowed-host"
        raise Problem("host", told)

    def check_site(self, headers: Headers) -> None:
        """Raises Problem where a page of another site asks.

        Sec-Fetch-Site comes first: no page can set it, and it holds behind a proxy that changes Host.
        """
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        own = site in OWN if site is not None else origin is None or self._is_own(origin, headers.get("host", ""))
        if not own:
            raise Problem("cross-site", "a page of another site asks, says the browser: only the service's own may")

    def _is_own(self, origin: str, host: str) -> bool:
        scheme, _, address = origin.lower().partition("://")
        port = PORTS.get(scheme, "")
        same = address.removesuffix(port) == host.lower().removesuffix(port)
        return bool(address) and (same or _name(address) in self._names - {"localhost"})


def _name(address: str) -> str:
    """Returns the host of "host:port", as a name is compared; "" where there is none."""
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
