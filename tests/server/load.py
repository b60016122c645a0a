"""Callers that send one request after another without a pause."""

from __future__ import annotations

import contextlib
import threading

import httpx2 as httpx

from tests.harness import TIMEOUT_S, wait_until
from tests.server.blocking_provider import chat

CALLERS = 6


class Load:
    """Callers that run until the end of the block; each request has a user of its own.

    With `streams`, every other request asks for a stream.
    """

    def __init__(self, base_url: str, name: str, *, streams: bool = False) -> None:
        self._base_url = base_url
        self._name = name
        self._streams = streams
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]
        #: The users of the requests whose response had status 200 and was received whole.
        self.succeeded: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def wait_for_responses(self, count: int) -> None:
        """Wait for `count` more responses."""
        goal = len(self.succeeded) + count
        wait_until(lambda: len(self.succeeded) >= goal, f"{count} more responses")

    def _call(self, caller: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            user = f"{self._name}-{caller}-{number}"
            with contextlib.suppress(httpx.TransportError):
                if chat(self._base_url, user, stream=self._streams and number % 2 == 0).status_code == 200:
                    self.succeeded.append(user)
