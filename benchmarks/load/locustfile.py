"""Callers of the HTTP service for locust; each sends one request after another, with mixed decoding options.

locust -f benchmarks/load/locustfile.py --headless -u 16 -r 16 -t 30s --host http://127.0.0.1:8000

If the service needs a token, it is taken from the variable CAPTIONING_TOKEN.
"""

import os
import random
from typing import Any

from locust import FastHttpUser, constant, task

from benchmarks.load.traffic import OPTIONS, Requests

REQUESTS = Requests.drawn()
TOKEN = os.environ.get("CAPTIONING_TOKEN")


class Caller(FastHttpUser):
    """A client that sends its next photograph when it has the caption of the last."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Gives each caller a different order."""
        self.chance = random.Random(id(self))

    @task
    def caption(self) -> None:
        """Sends one photograph and reads its caption."""
        photo, way = REQUESTS.next(self.chance)
        headers = {"Content-Type": "image/jpeg"} | ({"Authorization": f"Bearer {TOKEN}"} if TOKEN else {})
        path = f"/v1/captions?{OPTIONS[way]}"
        body: Any = REQUESTS.files[photo]  # bytes are sent as they are, though locust only admits to text
        with self.client.post(path, body, headers=headers, name=way, catch_response=True) as answer:
            if answer.status_code != 200 or not answer.json()["captions"][0]["caption"]:
                answer.failure(f"{answer.status_code}")
