"""An HTTP request to a provider."""

from __future__ import annotations

from dataclasses import dataclass

from tornado_proxy.domain.identity import Secret


class Payload:
    """A request body, read in pieces by libcurl and dropped as soon as the provider responds.

    Otherwise a prompt of a megabyte would stay in memory for as long as its response streams.
    """

    __slots__ = ("_data", "_position", "size")

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._position = 0
        self.size = len(data)

    def read(self, limit: int) -> bytes:
        """Return the next bytes, at most `limit`; b"" at the end."""
        data = bytes(self._data[self._position : self._position + limit])
        self._position += len(data)
        return data

    def rewind(self, position: int) -> None:
        """Continue at byte `position`, because the request is sent again on a new connection."""
        self._position = position

    def drop(self) -> None:
        """Drop the bytes: a request that has a response is never sent again."""
        self._data = memoryview(b"")


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """An HTTP request to a provider.

    Attributes:
        url: Complete URL, http or https.
        headers: Headers without secrets.
        key_headers: Headers with the provider key; never logged.
        connect_timeout_s: Seconds until the connection must exist, name lookup and TLS handshake included.
        idle_timeout_s: Seconds without a byte from the provider after which the exchange ends.
        ca_file: PEM file of the trusted authorities; None for certifi's.
    """

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
        """The scheme, host and port of `url`, for example "https://api.openai.com"."""
        return "/".join(self.url.split("/", 3)[:3])

    @property
    def may_be_http2(self) -> bool:
        """True if the provider may choose HTTP/2, which is negotiated over TLS only."""
        return self.url.startswith("https:")
