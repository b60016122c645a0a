"""The body worker: a process that reads large request bodies, one after the other, until its input ends.

    python -m tornado_proxy.gateway.bodies.worker DESCRIPTOR_OF_A_UNIX_SOCKET

A C parser holds the interpreter lock for as long as a body takes, and garbage collection stops every thread: in a
thread of the proxy 8 MiB of `{},{},...` held all streams up for 0.9 s.  This process has no provider keys in its
environment, and an upper bound of memory for each body.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import socket
import sys
import traceback
from pathlib import Path

from tornado_proxy.domain.errors import BodyTooLarge, CallerError
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.bodies.reading import read_body
from tornado_proxy.gateway.bodies.shared_body import map_body
from tornado_proxy.gateway.bodies.worker_messages import (
    BodyResult,
    BodyTask,
    Refusal,
    encode_message,
    read_exactly,
    read_task,
)
from tornado_proxy.providers.contract import HttpEndpoint, Provider, RequestView, WebSocketEndpoint
from tornado_proxy.providers.conventions import ProviderOptions
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.wire.form_outline import Body
from tornado_proxy.wire.multipart import read_form
from tornado_proxy.wire.splice import find_splice

#: Memory that a body may take, beyond that of the process: a number of times its length, and some more.  An image takes
#: 4 times its length, a batch 2 times, empty objects 30 times: those are refused.
MEMORY_FACTOR, MEMORY_BASE_BYTES = 6, 256 * MIB

#: Frames of a traceback that go to the log.
_MAX_FRAMES = 5


def main() -> None:
    """Read bodies until standard input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    descriptors = socket.socket(fileno=int(sys.argv[1]))
    # JSON has no cycles, so reference counts free everything; what exists now lives as long as the process.
    gc.disable()
    gc.freeze()
    while (task := read_task(source)) is not None:
        _limit_memory(task.body_bytes)
        body = _receive_body(descriptors) if task.is_shared else read_exactly(source, task.body_bytes)
        if body is None:
            return
        sink.write(encode_message(_read(task, body)))
        sink.flush()
        del body
        gc.collect()  # the frames of an error refer to it


def _receive_body(descriptors: socket.socket) -> mmap.mmap | None:
    """Return the memory of which the proxy sends a descriptor; None if the proxy has ended."""
    _, received, _, _ = socket.recv_fds(descriptors, 1, 1)
    if not received:
        return None
    try:
        return map_body(received[0])
    finally:
        os.close(received[0])


def _read(task: BodyTask, body: Body) -> BodyResult:
    try:
        if isinstance(body, bytes):
            return _read_bytes(task, body)
        view = RequestView(b"", task.content_type, task.path_id, task.query, read_form(body, task.content_type))
        return BodyResult(read_body(*_find_endpoint(task), view).facts)
    except CallerError as error:
        return BodyResult(refusal=Refusal.of(error))
    except MemoryError:
        limit = (MEMORY_FACTOR * len(body) + MEMORY_BASE_BYTES) // MIB
        too_many = BodyTooLarge(f"the body holds too many values: reading it takes more than {limit} MiB; send fewer")
        return BodyResult(refusal=Refusal.of(too_many))
    except Exception as error:  # noqa: BLE001  # the proxy logs it and responds with 500
        return BodyResult(fault=_describe(error))


def _read_bytes(task: BodyTask, body: bytes) -> BodyResult:
    if task.is_frame:
        return BodyResult(frame=_find_socket(task).parse_frame(body, task.model))
    provider, endpoint = _find_endpoint(task)
    parsed = read_body(provider, endpoint, RequestView(body, task.content_type, task.path_id, task.query))
    return BodyResult(parsed.facts, splice=None if parsed.body is body else find_splice(body, parsed.body))


def _find_endpoint(task: BodyTask) -> tuple[Provider, HttpEndpoint]:
    provider = next(provider for provider in PROVIDERS if provider.name == task.provider)
    provider = provider.configure(ProviderOptions(exact_speech=task.exact_speech))
    for endpoint in provider.endpoints:
        if isinstance(endpoint, HttpEndpoint) and (endpoint.method, endpoint.path) == (task.method, task.path):
            return provider, endpoint
    raise LookupError(f"no endpoint {task.method} {task.path} of {task.provider}")


def _find_socket(task: BodyTask) -> WebSocketEndpoint:
    provider = next(provider for provider in PROVIDERS if provider.name == task.provider)
    for endpoint in provider.endpoints:
        if isinstance(endpoint, WebSocketEndpoint) and endpoint.path == task.path:
            return endpoint
    raise LookupError(f"no WebSocket {task.path} of {task.provider}")


def _limit_memory(body_bytes: int) -> None:
    """Let the process take no more memory than `body_bytes` justify; has no effect on systems without such a limit."""
    if not Path("/proc/self/statm").exists():
        return
    held_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = held_bytes + MEMORY_FACTOR * body_bytes + MEMORY_BASE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _describe(error: Exception) -> str:
    """Return the type of an error and where it was raised.  Its message could repeat the body."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(error).__name__} at {places}"


if __name__ == "__main__":
    main()
