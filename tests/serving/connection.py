"""Bytes to and from a service in a process of its own, and waiting for what becomes of it."""

import socket
import time
from collections.abc import Callable

from tests.serving.process import Service

JPEG = {"Content-Type": "image/jpeg"}
SLOW = {"decoding": "sample", "num_samples": "100", "min_length": "900", "max_length": "1000", "seed": "1"}


def ask_slowly(service: Service, photo: bytes) -> socket.socket:
    """Sends a request that takes long, and returns its connection once it is being worked on."""
    accepted = service.metric("caption_accepted_total")
    connection = socket.create_connection(("127.0.0.1", service.port))
    query = "&".join(f"{name}={value}" for name, value in SLOW.items())
    connection.sendall(head(f"/v1/captions?{query}", photo) + photo)
    until(lambda: service.metric("caption_accepted_total") > accepted)
    return connection


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    """Waits until a condition in another process holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def read_all(connection: socket.socket) -> bytes:
    """Returns what comes until the service closes the connection."""
    with connection:
        connection.settimeout(60)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head(path: str, photo: bytes, version: str = "1.1", more: str = "") -> bytes:
    """Returns what comes before a photograph."""
    told = f"Host: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photo)}\r\n{more}"
    return f"POST {path} HTTP/{version}\r\n{told}\r\n".encode()
