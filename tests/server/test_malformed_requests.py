"""Ambiguous targets, unknown methods, invalid lengths, preflight requests: none reaches a provider."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.raw_provider import request_id_of

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


@pytest.mark.parametrize("credential", [True, False])
def test_error_response_to_head_has_no_body(credential: bool, connection: Connection) -> None:
    token = f"Authorization: Bearer {mint()}\r\n" if credential else ""
    connection.send(f"HEAD /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{token}Connection: close\r\n\r\n".encode())

    head, _, body = connection.read_all().partition(b"\r\n\r\n")
    assert status_of(head) == 405
    assert b"Allow: POST" in head
    assert body == b""


@pytest.mark.parametrize("target", ["/v1/models", "/openai/v1/models/gpt-4o-mini"])
def test_head_is_sent_as_get_and_its_response_has_no_body(
    target: str, proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    body = b'{"object":"list","data":[{"id":"gpt-4o-mini","object":"model"}]}'
    provider.response = ProviderResponse(
        headers=(("Content-Type", "application/json"), ("x-request-id", "req_1")), chunks=(body,)
    )
    request = f"HEAD {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\n".encode()

    connection.send(request + b"\r\n")
    first = connection.wait_for(b"\r\n\r\n")
    connection.send(request + b"Connection: close\r\n\r\n")

    received = connection.read_all()
    assert status_of(first) == 200
    assert b"x-request-id: req_1" in first
    assert received.count(b"HTTP/1.1 200") == 2
    assert b"gpt-4o-mini" not in received
    assert [request.method for request in provider.requests[-2:]] == ["GET", "GET"]


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
    provider.response = ProviderResponse(headers=headers, chunks=(b'{"data":[]}',))

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


@pytest.mark.parametrize(
    ("path", "code_member", "request_bytes"),
    [
        pytest.param(
            "/v1/chat/completions", ("error", "code"), b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", id="chunk"
        ),
        pytest.param("/anthropic/v1/messages", ("error", "type"), b"Content-Length: abc\r\n\r\n", id="length"),
        pytest.param("/anthropic/v1/messages", ("error", "type"), b"A\x01: b\r\n\r\n", id="header name"),
        pytest.param(
            "/accounts/projects/x/llm-proxy/usage", ("error", "code"), b"Content-Length: -1\r\n\r\n", id="usage"
        ),
    ],
)
def test_malformed_request_is_a_400_in_the_provider_s_format_with_a_request_id(
    path: str, code_member: tuple[str, str], request_bytes: bytes, proxy: ProxyProcess, connection: Connection
) -> None:
    connection.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\n".encode() + request_bytes)

    head, _, body = connection.read_all().partition(b"\r\n\r\n")

    assert status_of(head) == 400
    error = json.loads(body)
    assert (
        error[code_member[0]][code_member[1]]
        == {"code": "malformed_request", "type": "invalid_request_error"}[code_member[1]]
    )
    request_id = request_id_of(head + b"\r\n\r\n")
    assert '"code":"malformed_request"' in proxy.wait_for_log(request_id)


@pytest.mark.parametrize(
    ("path", "member", "word"),
    [
        pytest.param("/v1/chat/completions", "code", "headers_too_large", id="openai"),
        pytest.param("/anthropic/v1/messages", "type", "request_too_large", id="anthropic"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_head_over_64_kib_is_a_431_in_the_provider_s_format(
    path: str, member: str, word: str, complete: bool, proxy: ProxyProcess, connection: Connection
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\nA: ".encode() + b"a" * 70_000

    connection.send(head + b"\r\n\r\n" if complete else head)
    head, _, body = connection.read_all().partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert json.loads(body)["error"][member] == word
    assert '"code":"headers_too_large"' in proxy.wait_for_log(request_id_of(head + b"\r\n\r\n"))


@pytest.mark.parametrize("name", ["Llm-Proxy-Request-Id", "llm-proxy-request-id"])
def test_provider_s_own_llm_proxy_request_id_does_not_pass_beside_ours(
    name: str, proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    provider.response = ProviderResponse(headers=(("Content-Type", "application/json"), (name, "req_of_the_provider")))
    connection.send(
        f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\nConnection: close\r\n\r\n".encode()
    )

    response = connection.read_all()

    assert response.lower().count(b"llm-proxy-request-id:") == 1
    assert b"req_of_the_provider" not in response


def test_body_with_extensions_and_trailers_reaches_the_provider_without_them(
    proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    provider.response = ProviderResponse()
    connection.send(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"
        "Connection: close\r\n\r\n".encode()
        + b"%x;sig=abc\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(BODY), BODY)
    )

    assert status_of(connection.read_all()) == 200
    assert provider.requests[-1].body == BODY
    assert provider.requests[-1].header("x-sum") is None


@pytest.mark.parametrize("authority", ["http://x", "https://llm.example.com:8443", "HTTP://api.openai.com"])
def test_target_in_absolute_form_reaches_the_provider_as_its_path(
    authority: str, proxy: ProxyProcess, provider: ReplayProvider, connection: Connection
) -> None:
    provider.response = ProviderResponse(chunks=(b'{"data":[]}',))
    connection.send(
        f"GET {authority}/v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint()}\r\n"
        "Connection: close\r\n\r\n".encode()
    )

    assert status_of(connection.read_all()) == 200
    assert provider.requests[-1].target == "/v1/models"
