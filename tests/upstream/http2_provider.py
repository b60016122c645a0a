"""A provider that speaks HTTP/2 over TLS and records the events of each connection and stream."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from hyperframe.frame import GoAwayFrame

from tests.upstream.authority import make_server_context

Respond = Callable[["Stream"], Awaitable[None]]


class Stream:
    """One request and its response.  `client_reset` is done when the client has reset the stream."""

    def __init__(self, connection: Connection, number: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.connection = connection
        self.headers = {name.decode(): value.decode() for name, value in headers}
        self.body = bytearray()
        self.request_complete = asyncio.Event()
        self.client_reset: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent_bytes = 0
        self._number = number

    @property
    def path(self) -> str:
        return self.headers[":path"]

    async def send_head(self, status: int = 200, *headers: tuple[str, str]) -> None:
        """Wait for the complete request, then send status and headers."""
        await self.request_complete.wait()
        self.connection.protocol.send_headers(self._number, [(":status", str(status)), *headers])
        self.connection.flush()

    async def send(self, data: bytes) -> None:
        """Send body bytes as fast as the client's flow-control windows allow (RFC 9113 section 5.2)."""
        while data:
            window_bytes = await self.connection.wait_for_window(self._number)
            piece, data = data[:window_bytes], data[window_bytes:]
            self.connection.protocol.send_data(self._number, piece)
            self.sent_bytes += len(piece)
            self.connection.flush()

    def end(self) -> None:
        """End the body properly."""
        self.connection.protocol.end_stream(self._number)
        self.connection.flush()

    def reset(self) -> None:
        """Reset this stream with INTERNAL_ERROR (RFC 9113 section 6.4)."""
        self.connection.protocol.reset_stream(self._number, h2.errors.ErrorCodes.INTERNAL_ERROR)
        self.connection.flush()


class Protocol(h2.connection.H2Connection):
    """h2's own class closes the connection if the client opens too many streams; a provider refuses the stream."""

    @property
    def open_inbound_streams(self) -> int:
        return 0


class Connection:
    """One connection: its protocol state and its streams."""

    def __init__(self, writer: asyncio.StreamWriter, respond: Respond, max_streams: int) -> None:
        self.protocol = Protocol(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.protocol.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: max_streams}
        )
        self.streams: dict[int, Stream] = {}
        #: The highest number of streams that were open at the same time.
        self.peak_streams = 0
        self._max_streams = max_streams
        self._writer = writer
        self._respond = respond
        self._open_streams = 0
        self._window_changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Serve until the client closes."""
        self.protocol.initiate_connection()
        self.flush()
        try:
            while data := await reader.read(65536):
                for event in self.protocol.receive_data(data):
                    self._handle(event)
                self.flush()
                async with self._window_changed:
                    self._window_changed.notify_all()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for_window(self, number: int) -> int:
        """Wait until bytes may be sent on stream `number`; return how many."""
        async with self._window_changed:
            await self._window_changed.wait_for(lambda: self._window_bytes(number) > 0)
        return self._window_bytes(number)

    def go_away(self, *, refuse: Stream | None = None) -> None:
        """Accept no new stream (RFC 9113 section 6.8), and refuse the stream `refuse`; open streams continue."""
        last_accepted = max(number for number, stream in self.streams.items() if stream is not refuse)
        self._writer.write(GoAwayFrame(last_stream_id=last_accepted).serialize())

    def abort(self) -> None:
        """Close the connection without ending its streams."""
        self._writer.transport.abort()

    def flush(self) -> None:
        """Write the frames that the protocol has queued."""
        self._writer.write(self.protocol.data_to_send())

    def _window_bytes(self, number: int) -> int:
        return min(self.protocol.local_flow_control_window(number), self.protocol.max_outbound_frame_size)

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived() if self._open_streams >= self._max_streams:
                self.protocol.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            case h2.events.RequestReceived():
                self._open_streams += 1
                self.peak_streams = max(self.peak_streams, self._open_streams)
                stream = self.streams[event.stream_id] = Stream(self, event.stream_id, event.headers)
                self._tasks.add(asyncio.create_task(self._run(stream)))
            case h2.events.DataReceived():
                if event.stream_id in self.streams:
                    self.streams[event.stream_id].body += event.data
                self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded() if event.stream_id in self.streams:
                self.streams[event.stream_id].request_complete.set()
            case h2.events.StreamReset() if event.stream_id in self.streams:
                self.streams[event.stream_id].client_reset.set_result(None)
            case _:
                pass

    async def _run(self, stream: Stream) -> None:
        responding = asyncio.ensure_future(self._respond(stream))
        ends: list[asyncio.Future[Any]] = [responding, stream.client_reset]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open_streams -= 1
            responding.cancel()
            await asyncio.gather(responding, return_exceptions=True)


@dataclass
class Provider:
    """A running provider.  `connections` are all that were ever opened, the oldest first."""

    url: str = ""
    connections: list[Connection] = field(default_factory=list)

    @property
    def streams(self) -> list[Stream]:
        return [stream for connection in self.connections for stream in connection.streams.values()]


@contextlib.asynccontextmanager
async def run_http2_provider(
    respond: Respond, *, max_streams: int = 100, context: ssl.SSLContext | None = None
) -> AsyncIterator[Provider]:
    """Call `respond` with each stream; refuse streams over `max_streams` open ones of a connection."""
    provider = Provider()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer, respond, max_streams)
        provider.connections.append(connection)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await connection.serve(reader)
        writer.transport.abort()

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    context = context or make_server_context(alpn_protocols=("h2",))
    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=context, backlog=1024)
    provider.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        for connection in provider.connections:
            connection.abort()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # lets the transports close before the loop does
