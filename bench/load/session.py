"""One WebSocket session that asks for messages and counts them."""

from __future__ import annotations

import asyncio
import json

from bench.contestants import Contestant
from bench.frames import text_frame
from bench.load.stream import Stream, source_address

#: The model stands in the query, as OpenAI's realtime API has it.
_PATH = "/v1/realtime?model=gpt-realtime"

#: RFC 6455 asks for a random key; it guards against caches, of which there are none here.
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Session(Stream):
    """A session; `ask` has the provider send messages, `ended` resolves with the response's last one."""

    event = b'"type":"response.output_audio.delta"'
    last = b'"type":"response.done"'

    def upgrade(self) -> None:
        """Send the handshake; `ended` resolves to False if it is refused, and events of a session begin if not."""
        self._begin()
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

    def ask(self, directive: str) -> None:
        self._begin()
        event = {"type": "response.create", "response": {"instructions": f"[[bench {directive}]]"}}
        self.transport.write(text_frame(json.dumps(event).encode(), masked=True))

    def accepts(self, status: int) -> bool:
        return status == 101

    def is_last(self, joined: bytes) -> bool:
        return self.last in joined


async def open_session(contestant: Contestant, number: int = 0) -> Session:
    """A session whose first message, `session.created`, has come.

    Raises:
        RuntimeError: the relay refuses.
    """
    _, session = await asyncio.get_running_loop().create_connection(
        lambda: Session(contestant), contestant.host, contestant.port, local_addr=(source_address(number), 0)
    )
    session.upgrade()
    while session.received_bytes == 0:
        session.changed.clear()
        await asyncio.wait_for(session.changed.wait(), 20)
        if session.ended.done():
            raise RuntimeError(f"{contestant.name} answers {session.status} to a WebSocket")
    return session
