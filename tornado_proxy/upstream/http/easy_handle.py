"""libcurl's easy handle, set up once and reused from one exchange to the next."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import certifi
import pycurl

from tornado_proxy.upstream.http.exchange import CREDIT_BYTES, Exchange
from tornado_proxy.upstream.http.request import Payload, UpstreamRequest
from tornado_proxy.upstream.http.send_buffer import LARGE_BYTES, SEND_BYTES

#: Whom to trust where the configuration names nobody.
_CA_FILE = certifi.where()

#: Bytes libcurl reads at a time; all handles share the buffer.  Larger reads gain nothing that could be measured.
_BUFFER_BYTES = 64 * 1024

#: Seconds in which the end of a connection says that the provider has not looked at what was sent: a round trip.
_UNSEEN_S = 0.5


class EasyHandle:
    """An easy handle with the options that never change set once, and callbacks to the exchange it now serves."""

    __slots__ = ("_credited", "_kept", "_method", "_went_ahead", "curl", "exchange", "large", "opens", "payload")

    def __init__(self) -> None:
        self._credited = False
        self._kept: tuple[float, str] | None = None
        self._method = ""
        self._went_ahead = False
        #: Whether it has sent a request after which its buffer takes much memory.
        self.large = False
        #: The origin whose opening this handle waits for or goes ahead for (upstream/http/connection_gate.py).
        self.opens: str | None = None
        self.exchange: Exchange | None = None
        self.payload: Payload | None = None
        curl = self.curl = pycurl.Curl()
        curl.handle = self  # type: ignore[attr-defined]  # the way back from a finished transfer
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        # Proxies named in the environment are not for us: what they answer to CONNECT would look like a head.
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        # HTTP/2 where TLS offers it.  Not PIPEWAIT: streams past a connection's limit would wait for a whole stream.
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.HEADERFUNCTION, self._on_header_line)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, SEND_BYTES)
        curl.setopt(pycurl.READFUNCTION, self._read)
        curl.setopt(pycurl.SEEKFUNCTION, self._seek)

    def prepare(self, request: UpstreamRequest, exchange: Exchange) -> None:
        """Set what differs from one exchange to the next."""
        self.exchange = exchange
        curl = self.curl
        curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.HTTPHEADER, _header_lines(request))
        self._keep(request)
        if self._credited and not request.may_be_http2:
            curl.setopt(pycurl.MAX_RECV_SPEED_LARGE, 0)
        self._credited = request.may_be_http2
        if request.method == "POST":
            self.payload = request.body or Payload(b"")
            curl.setopt(pycurl.POSTFIELDSIZE_LARGE, self.payload.size)
            self.large = self.payload.size > LARGE_BYTES

    def _keep(self, request: UpstreamRequest) -> None:
        """What one exchange mostly shares with the one before: each option that is set costs about a microsecond."""
        kept = request.connect_timeout_s, request.ca_file or _CA_FILE
        if kept != self._kept:
            self._kept = kept
            self.curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(kept[0] * 1000))
            self.curl.setopt(pycurl.CAINFO, kept[1])
        if request.method == self._method:
            return
        self._method = request.method
        if request.method == "POST":
            self.curl.unsetopt(pycurl.CUSTOMREQUEST)
            self.curl.setopt(pycurl.POST, 1)
        else:
            self.curl.setopt(pycurl.HTTPGET, 1)
            self.curl.setopt(pycurl.CUSTOMREQUEST, request.method)

    def start_probe(self, connected: Callable[[str, float], None]) -> None:
        """Have `connected` called when a connection stands: with its origin, and the seconds that it took."""
        loop = asyncio.get_running_loop()
        origin = self.opens or ""
        began = loop.time()

        def on_connected(*_: object) -> int:
            # On the next turn of the loop: libcurl is at work here, and must not be given other handles.
            loop.call_soon(connected, origin, loop.time() - began)
            return pycurl.PREREQFUNC_OK

        self._went_ahead = True
        self.curl.setopt(pycurl.PREREQFUNCTION, on_connected)

    def give_credit(self) -> None:
        """Let a transfer that may be HTTP/2 take CREDIT_BYTES, as upstream/http/exchange.py says."""
        if self._credited:
            self.curl.setopt(pycurl.MAX_RECV_SPEED_LARGE, CREDIT_BYTES)

    def release(self) -> None:
        """Let go of the exchange and of the request's body and key."""
        self.exchange = None
        self.payload = None
        self.curl.unsetopt(pycurl.HTTPHEADER)
        if self._went_ahead:
            self._went_ahead = False
            self.curl.unsetopt(pycurl.PREREQFUNCTION)

    def close(self) -> None:
        """Give it back to libcurl, with no way left between it and this: it is freed at once."""
        del self.curl.handle  # type: ignore[attr-defined]
        self.curl.close()

    def _on_header_line(self, line: bytes) -> None:
        if self.exchange is not None:
            self.exchange.on_header_line(line)

    def _on_body(self, data: bytes) -> int | None:
        return -1 if self.exchange is None else self.exchange.on_body(data)

    def _read(self, most: int) -> bytes:
        return b"" if self.payload is None else self.payload.read(most)

    def _seek(self, offset: int, origin: int) -> int:
        if self.payload is None or origin != os.SEEK_SET or not self._may_send_again():
            return pycurl.SEEKFUNC_FAIL
        self.payload.rewind(offset)
        return pycurl.SEEKFUNC_OK

    def _may_send_again(self) -> bool:
        """Whether libcurl may send the body again, because the connection ended without an answer.

        A provider that was just closing a kept connection has not looked at the request, nor has one that refuses a
        stream of HTTP/2 (RFC 9113 section 8.7); both are seen within a round trip.  What ends later without an answer
        may have been acted on, and charged, and no proxy sends that again (RFC 9110 section 9.2.2).
        """
        if self.exchange is None:
            return False
        return self.exchange.idle_since(asyncio.get_running_loop().time()) < _UNSEEN_S


def _header_lines(request: UpstreamRequest) -> list[bytes]:
    lines = [f"{name}: {value}".encode("latin-1") for name, value in request.headers]
    lines += [f"{name}: {secret.reveal()}".encode("latin-1") for name, secret in request.key_headers]
    named = {name.lower() for name, _ in request.headers}
    # What libcurl adds by itself and the client did not say: a name without a value takes it out.
    lines += [
        line
        for name, line in (
            ("expect", b"Expect:"),
            ("accept", b"Accept:"),
            ("user-agent", b"User-Agent:"),
            ("content-type", b"Content-Type:"),
        )
        if name not in named
    ]
    return lines
