"""The last requests that the simulator saw, for tests that prove what a proxy sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

#: Requests kept, and bytes of bodies kept with them.
_KEPT_REQUESTS = 256
_KEPT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as it came: `target` is the raw path with its query.

    Headers keep order and repetition; their names are `Like-This`.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name, in whatever case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class RequestLog:
    """A bounded list of `SeenRequest`, oldest first; iterable and indexable.  Safe to read from another thread."""

    def __init__(self) -> None:
        self._seen: deque[SeenRequest] = deque(maxlen=_KEPT_REQUESTS)
        self._bytes = 0

    def add(self, request: SeenRequest) -> None:
        """Remember the request; the oldest ones go when there are too many or they hold too much."""
        if len(self._seen) == _KEPT_REQUESTS:
            self._bytes -= len(self._seen[0].body)
        self._seen.append(request)
        self._bytes += len(request.body)
        while self._bytes > _KEPT_BYTES and len(self._seen) > 1:
            self._bytes -= len(self._seen.popleft().body)

    def clear(self) -> None:
        """Forget everything."""
        self._seen.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._seen)

    def __iter__(self) -> Iterator[SeenRequest]:
        return iter(tuple(self._seen))

    def __getitem__(self, index: int) -> SeenRequest:
        return self._seen[index]
