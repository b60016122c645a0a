"""The messages between the proxy and a body worker, over the worker's standard input and output.

    proxy ── length, BodyTask, body ──────────────> worker
    proxy ── descriptor of a body in shared memory ──> worker    over a Unix socket, in place of a body
    proxy <── length, BodyResult ────────────────── worker

Lengths are four bytes, big-endian; the messages are MessagePack.  They are no pickles: a worker that a body has taken
over could otherwise run code in the process that holds the provider keys.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

import msgspec

from tornado_proxy.domain.errors import CallerError
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.providers.contract import ClientFrame
from tornado_proxy.wire.splice import Splice

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class BodyTask:
    """A body to read; its `body_bytes` bytes follow, or the descriptor of its memory if it `is_shared`.

    The endpoint is the one of `provider` with this method and path, under ProviderOptions with `exact_speech`.  A body
    with `is_frame` is a frame of a client on a WebSocket, in a session with `model`.
    """

    provider: str
    method: str
    path: str
    exact_speech: bool
    content_type: str
    path_id: str | None
    query: str
    body_bytes: int
    is_frame: bool = False
    model: str | None = None
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A CallerError as a message."""

    error_class: str
    message: str
    code: str
    param: str | None

    @classmethod
    def of(cls, error: CallerError) -> Refusal:
        """Return the message for `error`."""
        return cls(type(error).__name__, error.message, error.code, error.param)

    def error(self) -> CallerError:
        """Return the error of this message."""
        error_class = next(kind for kind in _error_classes(CallerError) if kind.__name__ == self.error_class)
        return error_class(self.message, code=self.code, param=self.param)


@dataclass(frozen=True, slots=True)
class BodyResult:
    """The facts of a body, or the reason why there are none.

    Attributes:
        facts: Set if the body of a request could be read.
        frame: Set if the frame of a client could be read.
        refusal: Set if the request must be refused.
        fault: The place of an unexpected error in the code, without any text of the body.
        splice: None if the body is sent as it is.
    """

    facts: RequestFacts | None = None
    frame: ClientFrame | None = None
    refusal: Refusal | None = None
    fault: str | None = None
    splice: Splice | None = None


class Source(Protocol):
    """A pipe to read from."""

    def read(self, size: int, /) -> bytes | None:
        """Return the next `size` bytes, fewer at the end of the pipe."""


def encode_message(message: BodyTask | BodyResult) -> bytes:
    """Return a message with its length."""
    encoded = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(encoded)) + encoded


def read_task(source: Source) -> BodyTask | None:
    """Return the next task, None at the end of the pipe."""
    encoded = _read_message(source)
    return None if encoded is None else msgspec.msgpack.decode(encoded, type=BodyTask)


def read_result(source: Source) -> BodyResult | None:
    """Return the next result, None if the worker has ended."""
    encoded = _read_message(source)
    return None if encoded is None else msgspec.msgpack.decode(encoded, type=BodyResult)


def read_exactly(source: Source, size: int) -> bytes | None:
    """Return `size` bytes, None if the pipe ends before."""
    data = source.read(size)
    return data if data is not None and len(data) == size else None


def _read_message(source: Source) -> bytes | None:
    head = read_exactly(source, _LENGTH.size)
    return None if head is None else read_exactly(source, _LENGTH.unpack(head)[0])


def _error_classes(base: type[CallerError]) -> list[type[CallerError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in _error_classes(child))]
