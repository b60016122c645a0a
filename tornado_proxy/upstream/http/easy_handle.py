"""libcurl's easy handle, set up once and reused for one exchange after another."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import lru_cache

import certifi
import pycurl

from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.address_guard import is_public
from tornado_proxy.upstream.http.exchange import CREDIT_BYTES, Exchange
from tornado_proxy.upstream.http.messages import Payload, UpstreamRequest
from tornado_proxy.upstream.http.send_buffer import LARGE_BYTES, SEND_BYTES
from tornado_proxy.upstream.http.streamed_payload import StreamedPayload

#: Trusted certificate authorities if the configuration names no ca_file; the wheel's libcurl has none of its own.
_DEFAULT_CA_FILE = certifi.where()

#: Bytes that libcurl reads at a time.  All handles of a multi handle share one buffer, so 64 KiB cost nothing per
#: stream; measured: larger reads gain nothing.
_RECEIVE_BUFFER_BYTES = 64 * 1024

#: Seconds after sending in which the end of a connection means that the provider has not processed the request: about
#: one RTT.
_UNPROCESSED_S = 0.5

#: Bytes of header lines, and of a URL, that an idle handle keeps: as many are idle as exchanges ever ran at once.
_MAX_KEPT_BYTES = 2048

#: Headers that libcurl adds on its own.  A line without a value removes one (CURLOPT_HTTPHEADER).
_LIBCURL_HEADERS = (
    ("\nexpect:", b"Expect:"),
    ("\naccept:", b"Accept:"),
    ("\nuser-agent:", b"User-Agent:"),
    ("\ncontent-type:", b"Content-Type:"),
)

_EMPTY_LINES = (b"\r\n", b"\n")


class EasyHandle:
    """An easy handle with its constant options set, and callbacks to the exchange that it currently serves."""

    __slots__ = (
        "_body_bytes",
        "_header_lines",
        "_headers",
        "_kept_options",
        "_key_headers",
        "_method",
        "_on_connected",
        "_public_only",
        "_url",
        "curl",
        "exchange",
        "gated_origin",
        "large",
        "may_be_http2",
        "origin",
        "payload",
        "refused_address",
    )

    def __init__(self) -> None:
        #: The values of options that are kept between exchanges: most of them are the same in the next one.
        self._body_bytes = -1
        self._headers: tuple[tuple[str, str], ...] | None = None
        self._key_headers: tuple[tuple[str, Secret], ...] = ()
        self._kept_options: tuple[float, str] | None = None
        self._method = self._url = ""
        self._header_lines: list[bytes] = []
        self._on_connected: Callable[[], object] | None = None
        self._public_only = False
        #: The origin of the current request.
        self.origin = ""
        #: True if the provider may choose HTTP/2 for the current request.
        self.may_be_http2 = False
        #: True if the transfer was ended because of the address that its URL leads to.
        self.refused_address = False
        #: True if a request has filled so much of the send buffer that the handle is not worth keeping.
        self.large = False
        #: The origin whose connection gate holds this handle (upstream/http/connection_gate.py).
        self.gated_origin: str | None = None
        self.exchange: Exchange | None = None
        self.payload: Payload | StreamedPayload | None = None
        curl = self.curl = pycurl.Curl()
        _set_constant_options(curl)
        curl.setopt(pycurl.HEADERFUNCTION, self._on_header_line)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)
        curl.setopt(pycurl.READFUNCTION, self._read)
        curl.setopt(pycurl.SEEKFUNCTION, self._seek)
        # Never set CLOSESOCKETFUNCTION: pycurl segfaults in it when many streams are aborted under load, after
        # "closesocket_callback failed to acquire thread".  tests/stress/ repeats that load.

    def prepare(self, request: UpstreamRequest) -> None:
        """Set the options that differ from those of the handle's previous request: each setopt() costs time."""
        if request.url != self._url:
            self._set_url(request)
        # The same tuple is in all requests with a key, and comparing secrets takes longer.
        if request.key_headers is not self._key_headers or request.headers != self._headers:
            self._set_headers(request)
        options = request.connect_timeout_s, request.ca_file or _DEFAULT_CA_FILE
        if options != self._kept_options:
            self._kept_options = options
            self.curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(options[0] * 1000))
            self.curl.setopt(pycurl.CAINFO, options[1])
        if request.method != self._method:
            self._set_method(request.method)
        if request.public_only:
            self._guard_address()
        if request.method == "POST":
            self._set_body(request.body or Payload(b""))

    def _set_url(self, request: UpstreamRequest) -> None:
        self._url, self.origin = request.url, request.origin
        self.curl.setopt(pycurl.URL, request.url)
        if self.may_be_http2 and not request.may_be_http2:
            self.curl.setopt(pycurl.MAX_RECV_SPEED_LARGE, 0)
        self.may_be_http2 = request.may_be_http2

    def _set_headers(self, request: UpstreamRequest) -> None:
        lines = _make_header_lines(request)
        self.curl.setopt(pycurl.HTTPHEADER, lines)
        are_kept = sum(map(len, lines)) <= _MAX_KEPT_BYTES
        self._headers, self._key_headers = _share(request.headers) if are_kept else None, request.key_headers

    def _set_method(self, method: str) -> None:
        self._method = method
        if method == "POST":
            self.curl.unsetopt(pycurl.CUSTOMREQUEST)
            self.curl.setopt(pycurl.POST, 1)
        else:
            # HTTPGET resets POST, which CUSTOMREQUEST alone would leave on.
            self.curl.setopt(pycurl.HTTPGET, 1)
            self.curl.setopt(pycurl.CUSTOMREQUEST, method)

    def _set_body(self, payload: Payload | StreamedPayload) -> None:
        self.payload = payload
        if payload.size != self._body_bytes:
            self._body_bytes = payload.size
            self.curl.setopt(pycurl.POSTFIELDSIZE_LARGE, payload.size)
            self.large = payload.size > LARGE_BYTES

    def _guard_address(self) -> None:
        """Let the transfer use connections to public addresses only, new ones and ones of other requests."""
        self._public_only = True
        self.curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        self.curl.setopt(pycurl.PREREQFUNCTION, self._on_prereq)

    def start_probe(self, on_connected: Callable[[str, float], None]) -> None:
        """Call `on_connected` when the transfer has a connection, with its origin and the connect time in seconds."""
        loop = asyncio.get_running_loop()
        origin = self.gated_origin or ""
        started_at = loop.time()
        # On the next turn of the loop: libcurl forbids adding handles from within its callbacks.
        self._on_connected = lambda: loop.call_soon(on_connected, origin, loop.time() - started_at)
        self.curl.setopt(pycurl.PREREQFUNCTION, self._on_prereq)

    def renew_credit(self) -> None:
        """Let a transfer that may use HTTP/2 receive CREDIT_BYTES more (see upstream/http/exchange.py)."""
        if self.may_be_http2:
            self.curl.setopt(pycurl.MAX_RECV_SPEED_LARGE, CREDIT_BYTES)

    def release(self) -> None:
        """Drop the exchange and the request's body; the next request often has the same headers and URL."""
        self.exchange = None
        self.payload = None
        if self._headers is None:
            self.curl.unsetopt(pycurl.HTTPHEADER)
        if len(self._url) > _MAX_KEPT_BYTES:
            self._url = ""
            self.curl.setopt(pycurl.URL, "")
        if self._header_lines:
            self._header_lines = []
        self.refused_address = False
        if self._on_connected is not None or self._public_only:
            self._on_connected = None
            self.curl.unsetopt(pycurl.PREREQFUNCTION)
        if self._public_only:
            self._public_only = False
            self.curl.unsetopt(pycurl.OPENSOCKETFUNCTION)

    def close(self) -> None:
        """Free the easy handle now, with its callbacks, which refer to this object: no garbage is left to collect."""
        self.curl.close()

    # Callbacks of libcurl.

    def _open_socket(self, purpose: int, address: tuple[int, int, int, tuple[str, int]]) -> socket.socket | int:
        """Return the socket of a new connection; its descriptor belongs to libcurl, which has its own copy."""
        family, kind, protocol, target = address
        if not is_public(target[0]):
            self.refused_address = True
            return pycurl.SOCKET_BAD
        return socket.socket(family, kind, protocol)

    def _on_prereq(self, address: str, *_: object) -> int:
        """Called when the transfer has a connection to `address`, before its request is sent."""
        if self._public_only and not is_public(address):
            self.refused_address = True
            return pycurl.PREREQFUNC_ABORT
        if self._on_connected is not None:
            self._on_connected()
        return pycurl.PREREQFUNC_OK

    def _on_header_line(self, line: bytes) -> None:
        """Collect the lines of a head, or of the trailers; an empty line ends a head."""
        # By the length first: 15 lines are compared in a response.
        if len(line) > 2 or line not in _EMPTY_LINES:
            self._header_lines.append(line)
            return
        lines, self._header_lines = self._header_lines, []
        if self.exchange is not None:
            self.exchange.on_header_lines(lines)

    def _on_body(self, data: bytes) -> int | None:
        return -1 if self.exchange is None else self.exchange.on_body(data)

    def _read(self, limit: int) -> bytes | int:
        data = b"" if self.payload is None else self.payload.read(limit)
        return pycurl.READFUNC_PAUSE if data is None else data

    def _seek(self, offset: int, origin: int) -> int:
        """Called by libcurl before it sends the body again on a new connection."""
        if self.payload is None or origin != os.SEEK_SET or not self._may_retry():
            return pycurl.SEEKFUNC_FAIL
        return pycurl.SEEKFUNC_OK if self.payload.rewind(offset) else pycurl.SEEKFUNC_FAIL

    def _may_retry(self) -> bool:
        """Return True if libcurl may send the body again after its connection ended without a response.

        A provider that closes a kept connection just as the request arrives has not processed it, nor has one that
        refuses the HTTP/2 stream (RFC 9113 section 8.7); both show within one RTT.  A connection that ends later
        may have carried a request that was processed and charged, and a proxy must not retry that (RFC 9110
        section 9.2.2).
        """
        if self.exchange is None:
            return False
        return self.exchange.idle_s(asyncio.get_running_loop().time()) < _UNPROCESSED_S


def _set_constant_options(curl: pycurl.Curl) -> None:
    """Set the options that are the same for every exchange."""
    # Required in a process with threads (CURLOPT_NOSIGNAL): libcurl may otherwise install signal handlers.
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    # Ignore http_proxy and its like: a proxy's response to CONNECT would look like the provider's response head.
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.SSL_VERIFYPEER, 1)
    curl.setopt(pycurl.SSL_VERIFYHOST, 2)
    # HTTP/2 if TLS negotiates it.  Never set PIPEWAIT: measured against a server that allows 128 streams on a
    # connection, streams over the limit waited until another stream had ended.
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
    curl.setopt(pycurl.BUFFERSIZE, _RECEIVE_BUFFER_BYTES)
    curl.setopt(pycurl.UPLOAD_BUFFERSIZE, SEND_BYTES)


@lru_cache(maxsize=64)
def _share(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return the same object for equal headers: open streams of one kind of client then share it."""
    return headers


def _make_header_lines(request: UpstreamRequest) -> list[bytes]:
    """Return the header lines for CURLOPT_HTTPHEADER: the request's, and removals of libcurl's own."""
    lines = [f"{name}: {value}" for name, value in request.headers]
    names = "\n".join(["", *lines]).lower()
    lines += [f"{name}: {secret.reveal()}" for name, secret in request.key_headers]
    # A line cannot hold a line feed: header names and values have none.
    return [
        *"\n".join(lines).encode("latin-1").split(b"\n"),
        *[removal for name, removal in _LIBCURL_HEADERS if name not in names],
    ]
