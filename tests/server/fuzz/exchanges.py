"""Sends generated requests to the proxy, and returns what the provider received and what the ledger recorded."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import websockets
from websockets.sync.client import ClientConnection, connect

from tests.harness import POLL_S, TIMEOUT_S, ProxyProcess, mint
from tests.server.fuzz.requests import Request
from tornado_proxy.simulator import Simulator

_END = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the ledger, as far as the laws need it."""

    request_id: str
    endpoint: str
    basis: str
    status: int | None
    total: Decimal


@dataclass(frozen=True, slots=True)
class Outcome:
    """A response: its status, the proxy's request id, its body, and what the provider received for it.

    `received` has the Content-Type and the body of each request, with the names of world.py in place of real ids.
    """

    status: int
    request_id: str
    body: bytes
    received: tuple[tuple[str, bytes], ...]


class Client:
    """A client of the caller's project with one connection, and a reader of the ledger.

    Args:
        proxy: The server.
        simulator: Its provider.
        models: The patterns of the caller's grant.
        ids: The ids of objects, by their names in world.py.
    """

    def __init__(self, proxy: ProxyProcess, simulator: Simulator, models: list[str], ids: Mapping[str, str]) -> None:
        self._ids = {name.encode(): real.encode() for name, real in ids.items()}
        self._proxy = proxy
        self._simulator = simulator
        self._token = mint(models=models)
        self._connection = http.client.HTTPConnection(proxy.base_url.removeprefix("http://"), timeout=TIMEOUT_S)

    def send(self, request: Request) -> Outcome:
        """Send a request and read its response."""
        self._simulator.requests.clear()
        headers = {"Authorization": f"Bearer {self._token}", "anthropic-version": "2023-06-01"}
        if request.content_type:
            headers["Content-Type"] = request.content_type
        # The connection opens again by itself after either side has closed it.
        try:
            self._connection.request("POST", request.target, self._name_ids(request.body), headers)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        # Polls of deferred usage are GET requests.
        requests = [entry for entry in self._simulator.requests if entry.method == "POST"]
        received = tuple((entry.header("Content-Type") or "", self._hide_ids(entry.body)) for entry in requests)
        return Outcome(response.status, response.headers["Llm-Proxy-Request-Id"], body, received)

    def send_frames(self, frames: list[str]) -> tuple[list[dict[str, Any]], list[bytes], list[Record]]:
        """Send frames on a session of /v1/responses, each after the end of the one before.

        Returns:
            The event that ended each frame, the frames that the provider received, and the records of the session.
        """
        self._simulator.messages.clear()
        url = f"ws{self._proxy.base_url.removeprefix('http')}/openai/v1/responses"
        headers = {"Authorization": f"Bearer {self._token}"}
        with connect(url, additional_headers=headers, max_size=None, compression=None) as socket:
            assert socket.response is not None
            session = socket.response.headers["Llm-Proxy-Request-Id"]
            ends = list(self._exchange_frames(socket, frames))
        received = [self._hide_ids(message.body) for message in self._simulator.messages]
        created = sum(map(creates_response, received))
        return ends, received, self._wait_for_records("session", session, created)

    def read_record(self, request_id: str) -> Record:
        """Return the record of a request; wait for it."""
        records = self._wait_for_records("request_id", request_id, 1)
        assert records, f"no record of {request_id}"
        return records[0]

    def read_pending(self) -> list[Record]:
        """Return the records that are not settled."""
        return self._select("basis", "pending")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _name_ids(self, body: bytes) -> bytes:
        """Return `body` with the ids of real objects."""
        for name, real in self._ids.items():
            body = body.replace(name, real)
        return body

    def _hide_ids(self, body: bytes) -> bytes:
        """Return `body` with the names of world.py for the ids of real objects, the longest id first."""
        for name, real in sorted(self._ids.items(), key=lambda item: -len(item[1])):
            body = body.replace(real, name)
        return body

    def _exchange_frames(self, socket: ClientConnection, frames: list[str]) -> Iterator[dict[str, Any]]:
        for frame in frames:
            with contextlib.suppress(websockets.ConnectionClosed):
                socket.send(self._name_ids(frame.encode()).decode())
                while True:
                    event = json.loads(socket.recv(TIMEOUT_S))
                    if event["type"] in _END:
                        yield event
                        break

    def _wait_for_records(self, column: str, value: str, count: int) -> list[Record]:
        deadline = time.monotonic() + TIMEOUT_S
        while len(records := self._select(column, value)) < count and time.monotonic() < deadline:
            time.sleep(POLL_S / 10)
        return records

    def _select(self, column: str, value: str) -> list[Record]:
        return select_records(self._proxy.ledger, column, value)


def select_records(ledger: Path, column: str, value: str) -> list[Record]:
    """Return the records of a SQLite ledger with `value` in `column`."""
    query = f"SELECT request_id, endpoint, basis, status, total FROM bills WHERE {column} = ?"  # noqa: S608  # our name
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
        rows = database.execute(query, (value,)).fetchall()
    return [Record(row[0], row[1], row[2], row[3], Decimal(row[4])) for row in rows]


def creates_response(frame: bytes) -> bool:
    """Return True if the provider starts a response for a frame, or rejects it with an error."""
    try:
        return bool(json.loads(frame).get("type") == "response.create")
    except ValueError:
        return False
