"""A WebSocket session that requests messages and counts them."""

from __future__ import annotations

import asyncio
import json

from bench.contestants import Contestant
from bench.frames import make_text_frame
from bench.load.stream import Stream, choose_source_address

#: OpenAI's realtime API takes the model from the query.
_PATH = "/v1/realtime?model=gpt-realtime"

#: RFC 6455 requires a random key as a protection against caches, which the benchmark does not have.
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Session(Stream):
    """A session.  `request_stream` makes the provider send messages; `ended` resolves with the last one."""

    event = b'"type":"response.output_audio.delta"'
    last = b'"type":"response.done"'

    def upgrade(self) -> None:
        """Send the handshake; `ended` resolves to False if the relay rejects it."""
        self._reset()
        lines = [
            f"GET {_PATH} HTTP/1.1",
            f"Host: {self.contestant.host}:{self.contestant.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {_KEY}",
            *(f"{name}: {value}" for name, value in self.contestant.headers),
        ]
        self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    def request_stream(self, directive: str) -> None:
        """Send an event that requests the messages of `directive`."""
        self._reset()
        event = {"type": "response.create", "response": {"instructions": f"[[bench {directive}]]"}}
        self.transport.write(make_text_frame(json.dumps(event).encode(), masked=True))

    def is_accepted(self, status: int) -> bool:
        """Return True for 101."""
        return status == 101

    def is_last(self, joined: bytes) -> bool:
        """Return True if `joined` holds the last message."""
        return self.last in joined


async def open_session(contestant: Contestant, number: int = 0) -> Session:
    """Open a session and wait for its first message, `session.created`.

    Raises:
        RuntimeError: the relay rejects the upgrade.
    """
    _, session = await asyncio.get_running_loop().create_connection(
        lambda: Session(contestant), contestant.host, contestant.port, local_addr=(choose_source_address(number), 0)
    )
    session.upgrade()
    while session.received_bytes == 0:
        session.changed.clear()
        await asyncio.wait_for(session.changed.wait(), 20)
        if session.ended.done():
            raise RuntimeError(f"{contestant.name} rejected a WebSocket with status {session.status}")
    return session
