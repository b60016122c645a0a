"""Plays WebSocket sessions over fakes of the client and the provider, and the events of OpenAI's realtime API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from tornado.iostream import StreamClosedError

from tests import virtual_time
from tests.gateway.fakes import FakeSocket, Gateway, make_snapshot, request_head
from tests.providers.openai.reports import REALTIME_USAGE
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.gateway.realtime.meter import SessionMeter
from tornado_proxy.gateway.realtime.relay import WebSocketRelay
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.websocket.message_protocol import Wait

REALTIME = "/openai/v1/realtime?model=gpt-realtime"
SESSION_ID = "req_session"

#: A frame without usage, and one that requests a response.
PING = json.dumps({"type": "input_audio_buffer.clear"})
CREATE = json.dumps({"type": "response.create", "event_id": "evt_1"})


def created(response_id: str = "resp_1") -> str:
    return json.dumps({"type": "response.created", "response": {"id": response_id}})


def delta(response_id: str = "resp_1", text: str = "a" * 400) -> str:
    return json.dumps({"type": "response.output_text.delta", "response_id": response_id, "delta": text})


def done(response_id: str = "resp_1") -> str:
    response = {"id": response_id, "status": "completed", "usage": REALTIME_USAGE}
    return json.dumps({"type": "response.done", "response": response})


def session_updated(model: str) -> str:
    return json.dumps({"type": "session.updated", "session": {"model": model}})


def make_tariff_snapshot(**members: Any) -> Snapshot:
    """Return a snapshot whose tariffs have other `members`, as after a reload."""
    snapshot = make_snapshot()
    return replace(snapshot, tariffs={name: replace(one, **members) for name, one in snapshot.tariffs.items()})


class SessionClient:
    """The client's side of a session.  `full` makes each write wait, as a full socket does; leave() makes it fail."""

    def __init__(self) -> None:
        self.received: list[str | bytes] = []
        self.closes: list[tuple[int | None, str | None]] = []
        self.full: asyncio.Event | None = None
        self.gone = False

    def send_frame(self, frame: str | bytes) -> Wait | None:
        if self.gone:
            raise StreamClosedError
        self.received.append(frame)
        return None if self.full is None else self._wait(self.full)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        self.closes.append((code, reason))

    async def _wait(self, event: asyncio.Event) -> None:
        await event.wait()


class Session:
    """A session that relays frames between a SessionClient and a FakeSocket."""

    def __init__(self, gateway: Gateway, socket: FakeSocket) -> None:
        self.gateway = gateway
        self.client = SessionClient()
        self.socket = socket

    async def open(self, target: str, **head: Any) -> None:
        admission = self.gateway.admission
        context = admission.authenticate_upgrade(
            self.gateway.snapshot, request_head(target, method="GET", headers=[], **head)
        )
        admitted = await admission.admit_upgrade(context, ())
        self.meter = SessionMeter(context, admitted.access, admitted.reader, SESSION_ID, self.gateway)
        self.relay = WebSocketRelay(admitted, SESSION_ID, self.client, self.socket, self.meter)
        self.relay.start(self.gateway.services())
        self.running = asyncio.ensure_future(self.relay.run())  # awaited by play()
        await virtual_time.settle()

    async def from_client(self, *frames: str | bytes) -> None:
        """Send frames of the client, each after the previous one has been handled."""
        for frame in frames:
            wait = self.relay.from_client(frame)
            if wait is not None:
                await wait

    async def from_provider(self, *frames: str | bytes) -> None:
        self.socket.deliver(*frames)
        await virtual_time.settle()

    def leave(self, code: int | None = None, reason: str | None = None) -> None:
        """Let the client leave."""
        self.client.gone = True
        self.relay.client_left(code, reason)

    @property
    def records(self) -> list[RequestRecord]:
        return self.gateway.ledger.finished


Act = Callable[[Session], Awaitable[None]]


def play(gateway: Gateway, act: Act, target: str = REALTIME, *, socket: FakeSocket | None = None) -> Session:
    """Open a session, let `act` play both sides, and wait until the session has ended."""

    async def run() -> Session:
        session = Session(gateway, FakeSocket() if socket is None else socket)
        await session.open(target)
        await act(session)
        await session.running
        return session

    return virtual_time.run(run())
