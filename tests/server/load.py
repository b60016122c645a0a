"""Callers that never pause."""

from __future__ import annotations

import contextlib
import threading

import httpx2 as httpx

from tests.server.holding import chat

CALLERS = 6


class Load:
    """Callers that call without a pause until they are stopped; each call has a user of its own."""

    def __init__(self, base_url: str, name: str) -> None:
        self._base_url = base_url
        self._name = name
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]
        self.answered: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self, caller: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            user = f"{self._name}-{caller}-{number}"
            with contextlib.suppress(httpx.TransportError):
                if chat(self._base_url, user).status_code == 200:
                    self.answered.append(user)
