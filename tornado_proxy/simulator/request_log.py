"""The last requests that the simulator received, for tests of what a proxy sends."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

#: Limits of the log, in requests and in bytes of their bodies; load tests send prompts of 1 MB and more.
MAX_REQUESTS = 256
MAX_BODIES_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as it was received: `target` is the raw path with its query.

    Headers keep their order and repetitions; Tornado writes their names `Like-This`.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the value of the first header with that name, in any case, or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class RequestLog:
    """A bounded list of `RecordedRequest`, oldest first; iterable and indexable.  Safe to read from another thread."""

    def __init__(self) -> None:
        self._requests: deque[RecordedRequest] = deque(maxlen=MAX_REQUESTS)
        self._bytes = 0

    def add(self, request: RecordedRequest) -> None:
        """Append the request; drop the oldest ones beyond either limit."""
        if len(self._requests) == MAX_REQUESTS:
            self._bytes -= len(self._requests[0].body)
        self._requests.append(request)
        self._bytes += len(request.body)
        while self._bytes > MAX_BODIES_BYTES and len(self._requests) > 1:
            self._bytes -= len(self._requests.popleft().body)

    def clear(self) -> None:
        """Remove all requests."""
        self._requests.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[RecordedRequest]:
        # A copy: iterating over a deque fails if the simulator's thread appends meanwhile.
        return iter(tuple(self._requests))

    def __getitem__(self, index: int) -> RecordedRequest:
        return self._requests[index]
