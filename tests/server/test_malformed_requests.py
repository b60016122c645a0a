"""Ambiguous targets, unknown methods, invalid lengths, preflight requests: none reaches a provider."""

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
    """A plain connection: sends and receives bytes as they are."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self.received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait_for(self, text: bytes) -> bytes:
        """Receive until `text` has arrived; return everything received."""
        while text not in self.received:
            data = self.socket.recv(65536)
            assert data, f"closed before {text!r}: {self.received!r}"
            self.received += data
        return self.received

    def read_all(self) -> bytes:
        """Receive until the server closes; return everything received."""
        while data := self.socket.recv(65536):
            self.received += data
        return self.received


@pytest.fixture
def connection(proxy: ProxyProcess) -> Iterator[Connection]:
    opened = Connection(proxy.base_url)
    with opened.socket:
        yield opened


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(b"/v1/models%2fx", id="encoded slash"),
        pytest.param(b"/v1/models%2Fx", id="encoded slash in capitals"),
        pytest.param(b"/v1/models%5cx", id="encoded backslash"),
        pytest.param(b"/v1/models%00", id="encoded control byte"),
        pytest.param(b"/v1/%6dodels", id="encoded letter"),
        pytest.param(b"/v1/../v1/models", id="dot dot"),
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
def test_ambiguous_target_is_rejected_below_every_prefix(
    prefix: str, path: bytes, proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    before = len(provider.requests)

    connection.send(
        b"GET "
        + prefix.encode()
        + path
        + f" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\nConnection: close\r\n\r\n".encode()
    )

    assert status_of(connection.read_all()) == 400
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
def test_invalid_length_is_a_client_error_and_logs_no_error(
    length: bytes, proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    before = len(provider.requests)

    connection.send(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\n".encode()
        + length
        + b"\r\n\r\n"
    )

    assert status_of(connection.read_all()) in (400, 413)
    assert not [line for line in proxy.log if '"level": "error"' in line]
    assert len(provider.requests) == before


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW"])
def test_unknown_method_is_a_405_with_an_error_body(method: str, connection: Connection) -> None:
    connection.send(f"{method} /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())

    head, _, body = connection.read_all().partition(b"\r\n\r\n")
    assert status_of(head) == 405
    assert json.loads(body)["error"]["code"] == "method_not_allowed"
    assert method in json.loads(body)["error"]["message"]


def test_head_is_rejected_without_a_body(connection: Connection) -> None:
    connection.send(b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    head, _, body = connection.read_all().partition(b"\r\n\r\n")
    assert status_of(head) == 405
    assert b"Allow: GET" in head
    assert body == b""


def test_preflight_request_gets_no_cors_headers(proxy: ProxyProcess, connection: Connection) -> None:
    connection.send(
        b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: https://page.example\r\nConnection: close\r\n"
        b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
    )

    response = connection.read_all()
    assert status_of(response) == 405
    assert b"access-control" not in response.lower()


def test_provider_s_cors_headers_are_not_relayed(
    proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    headers = (("Content-Type", "application/json"), ("Access-Control-Allow-Origin", "*"), ("Alt-Svc", 'h3=":443"'))
    provider.response = ProviderResponse(headers=headers)

    connection.send(
        f"GET /v1/models HTTP/1.1\r\nHost: x\r\nOrigin: https://page.example\r\nAuthorization: Bearer {mint()}\r\n"
        "Connection: close\r\n\r\n".encode()
    )

    response = connection.read_all().lower()
    assert status_of(response) == 200
    assert b"access-control" not in response
    assert b"alt-svc" not in response


def test_expected_body_is_requested_and_relayed(
    proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    provider.response = ProviderResponse()
    connection.send(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\nExpect: 100-continue\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    connection.wait_for(b"HTTP/1.1 100 (Continue)\r\n\r\n")

    connection.send(BODY)

    assert b"HTTP/1.1 200" in connection.read_all()
    assert provider.requests[-1].body == BODY
    assert provider.requests[-1].header("expect") is None


@pytest.mark.parametrize(
    ("token", "length", "status"),
    [
        pytest.param("invalid", len(BODY), 401, id="no valid token"),
        pytest.param(None, 65 * 1024 * 1024, 413, id="too large"),
    ],
)
def test_client_that_expects_100_continue_is_rejected_before_its_body(
    token: str | None, length: int, status: int, connection: Connection
) -> None:
    connection.send(
        f"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {token or mint()}\r\n"
        f"Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n".encode()
    )

    response = connection.read_all()

    assert status_of(response) == status
    assert b'"type": "error"' in response
