"""What is sent to a provider."""

from __future__ import annotations

from dataclasses import dataclass

from tornado_proxy.domain.identity import Secret


class Payload:
    """The body of a request, let go when the provider has answered and nobody can need it again.

    Prompts of a megabyte would otherwise stay in memory for as long as their answers stream.
    """

    __slots__ = ("_at", "_data", "size")

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self.size = len(data)

    def read(self, most: int) -> bytes:
        """The next bytes, at most `most`; b"" at the end."""
        data = bytes(self._data[self._at : self._at + most])
        self._at += len(data)
        return data

    def rewind(self, to: int) -> None:
        """Go back to byte `to`: the provider has not looked at the request, which goes out on a new connection."""
        self._at = to

    def drop(self) -> None:
        """Let the bytes go."""
        self._data = memoryview(b"")


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What is sent.  `url` is complete; `headers` are plain, `key_headers` hold the provider key, never shown."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    key_headers: tuple[tuple[str, Secret], ...]
    body: Payload | None
    connect_timeout_s: float
    idle_timeout_s: float
    ca_file: str | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port: what connections are kept for."""
        return "/".join(self.url.split("/", 3)[:3])

    @property
    def may_be_http2(self) -> bool:
        """Whether the provider may choose HTTP/2, which is offered with TLS alone."""
        return self.url.startswith("https:")
