"""Requests that no SDK sends: odd targets, methods and lengths, browsers that ask first.  None reaches a provider."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint
from tests.replay_provider import ProviderResponse, ReplayProvider

BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
PREFIXES = ("", "/openai", "/anthropic")


class Connection:
    """A connection that sends bytes as they are, and gives the answer as it came."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self.received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait_for(self, text: bytes) -> bytes:
        """All that was received, up to and with `text`."""
        while text not in self.received:
            more = self.socket.recv(65536)
            assert more, f"closed before {text!r}: {self.received!r}"
            self.received += more
        return self.received

    def rest(self) -> bytes:
        """All that was received until the server closed."""
        while more := self.socket.recv(65536):
            self.received += more
        return self.received


@pytest.fixture
def connection(proxy: ProxyProcess) -> Iterator[Connection]:
    opened = Connection(proxy.base_url)
    with opened.socket:
        yield opened


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(b"/v1/models%2fx", id="encoded slash"),
        pytest.param(b"/v1/models%2Fx", id="encoded slash in capitals"),
        pytest.param(b"/v1/models%5cx", id="encoded backslash"),
        pytest.param(b"/v1/models%00", id="encoded control byte"),
        pytest.param(b"/v1/%6dodels", id="encoded letter"),
        pytest.param(b"/v1/../v1/models", id="dots"),
        pytest.param(b"/v1/./models", id="one dot"),
        pytest.param(b"/v1/..;/models", id="dots with a parameter"),
        pytest.param(b"/v1//models", id="double slash"),
        pytest.param(b"//v1/models", id="double slash at the start"),
        pytest.param(b"/v1/models/", id="slash at the end"),
        pytest.param(b"/v1\\models", id="backslash"),
        pytest.param(b"/v1/mo\x01dels", id="control byte"),
        pytest.param(b"/v1/mo\x7fdels", id="delete"),
        pytest.param(b"/v1/mo\xc3\xa9dels", id="bytes over 127"),
        pytest.param(b"/v1/models#x", id="fragment"),
    ],
)
def test_a_target_that_could_be_read_in_two_ways_is_refused_on_every_prefix(
    prefix: str, path: bytes, proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    before = len(provider.requests)

    connection.send(
        b"GET "
        + prefix.encode()
        + path
        + f" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\nConnection: close\r\n\r\n".encode()
    )

    assert status_of(connection.rest()) == 400
    assert len(provider.requests) == before


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(b"Content-Length: abc", id="not a number"),
        pytest.param(b"Content-Length: -5", id="negative"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 6", id="two that differ"),
        pytest.param(b"Content-Length: " + b"9" * 5000, id="five thousand digits"),
        pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked", id="a length and chunks"),
    ],
)
def test_a_malformed_length_is_the_client_s_fault_and_no_line_of_an_error_log(
    length: bytes, proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    before = len(provider.requests)

    connection.send(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\n".encode()
        + length
        + b"\r\n\r\n"
    )

    assert status_of(connection.rest()) in (400, 413)
    assert not [line for line in proxy.log if '"level": "error"' in line]
    assert len(provider.requests) == before


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW"])
def test_a_method_that_nothing_takes_is_405_with_words(method: str, connection: Connection) -> None:
    connection.send(f"{method} /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())

    head, _, body = connection.rest().partition(b"\r\n\r\n")
    assert status_of(head) == 405
    assert json.loads(body)["error"]["code"] == "method_not_allowed"
    assert method in json.loads(body)["error"]["message"]


def test_head_is_refused_without_a_body(connection: Connection) -> None:
    connection.send(b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    head, _, body = connection.rest().partition(b"\r\n\r\n")
    assert status_of(head) == 405
    assert b"Allow: GET" in head
    assert body == b""


def test_a_browser_that_asks_first_is_told_of_no_other_origin(proxy: ProxyProcess, connection: Connection) -> None:
    connection.send(
        b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: https://page.example\r\nConnection: close\r\n"
        b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
    )

    answer = connection.rest()
    assert status_of(answer) == 405
    assert b"access-control" not in answer.lower()


def test_cors_headers_of_the_provider_do_not_reach_a_page(
    proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    headers = (("Content-Type", "application/json"), ("Access-Control-Allow-Origin", "*"), ("Alt-Svc", 'h3=":443"'))
    provider.response = ProviderResponse(headers=headers)

    connection.send(
        f"GET /v1/models HTTP/1.1\r\nHost: x\r\nOrigin: https://page.example\r\nAuthorization: Bearer {mint()}\r\n"
        "Connection: close\r\n\r\n".encode()
    )

    answer = connection.rest().lower()
    assert status_of(answer) == 200
    assert b"access-control" not in answer
    assert b"alt-svc" not in answer


def test_a_body_is_asked_for_and_sent_on(proxy: ProxyProcess, provider: ReplayProvider, connection: Connection) -> None:
    provider.response = ProviderResponse()
    connection.send(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\nExpect: 100-continue\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    connection.wait_for(b"HTTP/1.1 100 (Continue)\r\n\r\n")

    connection.send(BODY)

    assert b"HTTP/1.1 200" in connection.rest()
    assert provider.requests[-1].body == BODY
    assert provider.requests[-1].header("expect") is None


@pytest.mark.parametrize(
    ("token", "length", "status"),
    [
        pytest.param("nobody", len(BODY), 401, id="no valid token"),
        pytest.param(None, 65 * 1024 * 1024, 413, id="too large"),
    ],
)
def test_a_client_that_asks_before_it_sends_a_body_is_told_at_once(
    token: str | None, length: int, status: int, connection: Connection
) -> None:
    connection.send(
        f"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {token or mint()}\r\n"
        f"Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n".encode()
    )

    answer = connection.rest()

    assert status_of(answer) == status
    assert b'"type": "error"' in answer
