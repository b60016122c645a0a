"""A provider that speaks HTTP/2 over TLS, and tells what happened on each connection and stream."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from hyperframe.frame import GoAwayFrame

from tests.upstream.authority import make_server_context

Answer = Callable[["Stream"], Awaitable[None]]


class Stream:
    """One request.  The answer is whatever a test sends; `reset_at` is when the client took the stream back."""

    def __init__(self, connection: Connection, number: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.connection = connection
        self.headers = {name.decode(): value.decode() for name, value in headers}
        self.body = bytearray()
        self.whole = asyncio.Event()
        self.reset_at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.sent = 0
        self._number = number

    @property
    def path(self) -> str:
        return self.headers[":path"]

    async def send_head(self, status: int = 200, *headers: tuple[str, str]) -> None:
        """Send the head, when the request has come whole."""
        await self.whole.wait()
        self.connection.protocol.send_headers(self._number, [(":status", str(status)), *headers])
        self.connection.flush()

    async def send(self, data: bytes) -> None:
        """Send body bytes, as the client's flow-control windows let them go (RFC 9113 section 5.2)."""
        while data:
            room = await self.connection.room(self._number)
            piece, data = data[:room], data[room:]
            self.connection.protocol.send_data(self._number, piece)
            self.sent += len(piece)
            self.connection.flush()

    def end(self) -> None:
        """End the body properly."""
        self.connection.protocol.end_stream(self._number)
        self.connection.flush()

    def fail(self) -> None:
        """End this stream alone, with an error (RFC 9113 section 6.4)."""
        self.connection.protocol.reset_stream(self._number, h2.errors.ErrorCodes.INTERNAL_ERROR)
        self.connection.flush()


class Protocol(h2.connection.H2Connection):
    """The library's own ends the connection when a stream is too many; a provider refuses that stream."""

    @property
    def open_inbound_streams(self) -> int:
        return 0


class Connection:
    """One connection: the protocol's state, the streams that came over it, and how many were `refused`."""

    def __init__(self, writer: asyncio.StreamWriter, answer: Answer, max_streams: int) -> None:
        self.protocol = Protocol(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.protocol.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: max_streams}
        )
        self.streams: dict[int, Stream] = {}
        self.most_open = 0
        self.refused = 0
        self._max_streams = max_streams
        self._writer = writer
        self._answer = answer
        self._open = 0
        self._window = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Answer until the client closes."""
        self.protocol.initiate_connection()
        self.flush()
        try:
            while data := await reader.read(65536):
                for event in self.protocol.receive_data(data):
                    self._handle(event)
                self.flush()
                async with self._window:
                    self._window.notify_all()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def room(self, number: int) -> int:
        """Bytes that may leave now on a stream, at least one; waits for them."""
        async with self._window:
            await self._window.wait_for(lambda: self._room(number) > 0)
        return self._room(number)

    def go_away(self, *, refuse: Stream | None = None) -> None:
        """Take no new stream on this connection (RFC 9113 section 6.8), nor `refuse`; those that are open go on."""
        taken = max(number for number, stream in self.streams.items() if stream is not refuse)
        self._writer.write(GoAwayFrame(last_stream_id=taken).serialize())

    def cut(self) -> None:
        """Break the connection in the middle of everything."""
        self._writer.transport.abort()

    def flush(self) -> None:
        """Write what the protocol has to say."""
        self._writer.write(self.protocol.data_to_send())

    def _room(self, number: int) -> int:
        return min(self.protocol.local_flow_control_window(number), self.protocol.max_outbound_frame_size)

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived() if self._open >= self._max_streams:
                self.refused += 1
                self.protocol.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            case h2.events.RequestReceived():
                self._open += 1
                self.most_open = max(self.most_open, self._open)
                stream = self.streams[event.stream_id] = Stream(self, event.stream_id, event.headers)
                self._tasks.add(asyncio.create_task(self._run(stream)))
            case h2.events.DataReceived():
                if event.stream_id in self.streams:
                    self.streams[event.stream_id].body += event.data
                self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded() if event.stream_id in self.streams:
                self.streams[event.stream_id].whole.set()
            case h2.events.StreamReset() if event.stream_id in self.streams:
                self.streams[event.stream_id].reset_at.set_result(time.monotonic())
            case _:
                pass

    async def _run(self, stream: Stream) -> None:
        answering = asyncio.ensure_future(self._answer(stream))
        try:
            await asyncio.wait([answering, stream.reset_at], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= 1
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


@dataclass
class Provider:
    """What a test talks to and looks at.  `connections` are all there ever were, the oldest first."""

    url: str = ""
    connections: list[Connection] = field(default_factory=list)

    @property
    def streams(self) -> list[Stream]:
        return [stream for connection in self.connections for stream in connection.streams.values()]


@contextlib.asynccontextmanager
async def run_http2_provider(
    answer: Answer, *, max_streams: int = 100, context: ssl.SSLContext | None = None
) -> AsyncIterator[Provider]:
    """Serve each stream with `answer`; at most `max_streams` of a connection may be open at a time."""
    provider = Provider()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer, answer, max_streams)
        provider.connections.append(connection)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await connection.serve(reader)
        writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    context = context or make_server_context(alpn=("h2",))
    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context, backlog=1024)
    provider.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        for connection in provider.connections:
            connection.cut()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)
