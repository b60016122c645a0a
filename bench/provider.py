"""The mock provider of the benchmarks: canned responses from an asyncio protocol, several processes on one port.

    python -m bench.provider [--processes 2]         prints its port; runs until its process group is killed

A directive in the request's body, or in a WebSocket message, selects the response, because relays change neither.
Without a directive the response is a chat completion, or a message, of about 1 kB with usage.
`[[bench events=1000 gap_us=20000]]` requests a stream:

    events=N    the number of events before the usage event and `data: [DONE]`
    gap_us=N    microseconds between events; 0 sends as fast as the relay reads
    batch=N     events in one write, 1 by default
    pad=N       bytes added to each event
    id=N        the stream's name in `GET /state`, which lists open streams and the times at which others were cut

The content of a paced event is the time at which it was sent, `@nanoseconds@` of the monotonic clock, which all
processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import re
import socket
import time
from dataclasses import dataclass
from typing import cast

import uvloop

from bench import canned, frames

_DIRECTIVE = re.compile(rb"\[\[bench ([a-z_=0-9 ]+)\]\]")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

#: Bytes of a body that are searched for a directive; the rest of a 1 MB body is only counted.
_SEARCHED_BYTES = 16 * 1024

#: Read buffer, one for all connections: buffer_updated copies its bytes before the next read.
_BUFFER = memoryview(bytearray(256 * 1024))


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The stream that a directive requests; the module's docstring describes the fields."""

    events: int
    gap_us: int = 0
    batch: int = 1
    pad: int = 0
    id: int = 0


def read_plan(text: bytes) -> StreamPlan | None:
    """Return the stream that the directive in a body or message requests, or None without a directive."""
    directive = _DIRECTIVE.search(text)
    if directive is None:
        return None
    fields = (field.partition("=") for field in directive[1].decode().split())
    return StreamPlan(**{name: int(value) for name, _, value in fields})


@functools.cache
def _make_untimed_event(pad: int, turn: int, *, upgraded: bool) -> bytes:
    """Return an event without a time.

    Two texts alternate: LiteLLM ends a stream that repeats the same text a hundred times.
    """
    content = (b"word ", b"next ")[turn] * 4 + b"x" * pad
    return canned.make_message(content) if upgraded else canned.make_event(content)


class State:
    """The streams of this process, as `GET /state` shows them: open ones, and the times at which others were cut."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.cut: dict[int, int] = {}


class Connection(asyncio.BufferedProtocol):
    """A connection from a relay, with one request at a time."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._transport: asyncio.Transport
        self._pending = b""
        self._remaining_body = 0
        self._upgraded = False
        self._plan: StreamPlan | None = None
        self._sent = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._plan is not None:
            self._state.open.discard(self._plan.id)
            self._state.cut[self._plan.id] = time.monotonic_ns()
        self._plan = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        # A WebSocket may get several frames in one read, or a part of one.
        if self._upgraded:
            self._pending += bytes(_BUFFER[:nbytes])
            self._read_frames()
        elif self._remaining_body and len(self._pending) >= _SEARCHED_BYTES:
            self._remaining_body -= nbytes
        else:
            self._pending += bytes(_BUFFER[:nbytes])
            self._read_head(nbytes)
        if self._remaining_body == 0 and b"\r\n\r\n" in self._pending and not self._upgraded:
            request, self._pending = self._pending, b""
            self._respond(request)

    def _read_head(self, nbytes: int) -> None:
        if self._remaining_body:
            self._remaining_body -= nbytes
            return
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._pending, 0, end)
        self._remaining_body = (int(length[1]) if length else 0) - (len(self._pending) - end - 4)

    def _respond(self, request: bytes) -> None:
        plan = read_plan(request)
        if plan is not None:
            self._transport.write(canned.STREAM_HEAD)
            self._start_stream(plan)
        elif request.startswith(b"GET /state"):
            state = json.dumps({"open": sorted(self._state.open), "cut": self._state.cut}).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(state), state))
        elif b"sec-websocket-key" in request.lower():
            self._upgraded = True
            self._transport.write(frames.make_handshake_response(request) + canned.SESSION_CREATED)
        else:
            is_message = request.startswith((b"POST /v1/messages", b"POST /anthropic/v1/messages"))
            response = canned.MESSAGE_RESPONSE if is_message else canned.COMPLETION_RESPONSE
            self._transport.write(response.make())

    def _read_frames(self) -> None:
        while (frame := frames.read_frame(self._pending)) is not None:
            opcode, payload, self._pending = frame
            plan = read_plan(payload)
            if plan is not None:
                self._start_stream(plan)
            elif opcode == frames.PING:
                self._transport.write(frames.make_control_frame(frames.PONG, payload))
            elif opcode == frames.CLOSE:
                self._transport.write(frames.make_control_frame(frames.CLOSE, payload))
                self._transport.close()

    def _start_stream(self, plan: StreamPlan) -> None:
        self._plan, self._sent = plan, 0
        self._state.open.add(plan.id)
        self._due = asyncio.get_running_loop().time()
        self._send_due()

    def _send_due(self) -> None:
        """Send the next batch, then wait for its time, the next turn of the loop or the relay."""
        plan, loop = self._plan, asyncio.get_running_loop()
        self._timer = None
        if plan is None:
            return
        if self._sent >= plan.events:
            self._end_stream(plan)
            return
        size = min(plan.batch, plan.events - self._sent)
        self._sent += size
        if plan.gap_us:
            make_event = canned.make_message if self._upgraded else canned.make_event
            self._transport.write(make_event(b"@%d@" % time.monotonic_ns() + b"x" * plan.pad) * size)
        else:
            self._transport.write(_make_untimed_event(plan.pad, self._sent // size % 2, upgraded=self._upgraded) * size)
        # From the time it was due, not from now: a late event must not delay all later ones.
        if plan.gap_us:
            self._due += plan.gap_us / 1e6
            self._timer = loop.call_at(self._due, self._send_due)
        elif self._writable:
            self._timer = loop.call_soon(self._send_due)

    def _end_stream(self, plan: StreamPlan) -> None:
        self._plan = None
        # Counted as closed before the last write, which the client may answer with the next request.
        self._state.open.discard(plan.id)
        self._transport.write(canned.LAST_MESSAGE if self._upgraded else canned.LAST_EVENTS)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._plan is not None and self._timer is None:
            self._send_due()


async def serve(listener: socket.socket) -> None:
    """Serve connections until cancelled."""
    state = State()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), sock=listener, backlog=4096)
    async with server:
        await server.serve_forever()


def listen(port: int) -> socket.socket:
    """Return a socket that listens on `port`, or on a free port for 0."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The kernel spreads connections over all sockets that share the port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(4096)
    return listener


def main() -> None:
    """Print the port and serve in all processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    listeners = [listen(0)]
    port = listeners[0].getsockname()[1]
    listeners += [listen(port) for _ in range(options.processes - 1)]
    print(port, flush=True)
    # Forked after all sockets listen, so that the kernel spreads connections from the first one on.
    for listener in listeners[1:]:
        if os.fork() == 0:
            uvloop.run(serve(listener))
            return
    uvloop.run(serve(listeners[0]))


if __name__ == "__main__":
    main()
