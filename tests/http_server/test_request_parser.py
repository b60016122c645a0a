"""Requests as RFC 9112 allows them, in every cut of their bytes."""

from __future__ import annotations

import pytest

from tests.kept_memory import measure_kept_bytes
from tornado_proxy.http_server.incoming_request import IncomingRequest, decode_fields
from tornado_proxy.http_server.request_parser import Fault, RequestParser

HEAD = b"POST /v1 HTTP/1.1\r\nHost: h\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /next HTTP/1.1\r\nHost: h\r\n"
TOO_LARGE = "the request line and the headers are larger than 64 KiB"


def parse(sent: bytes, cut_bytes: int = 1 << 30) -> tuple[list[IncomingRequest], Fault | None]:
    """Return the requests in `sent`, which arrives in pieces of `cut_bytes`, and the fault."""
    parser = RequestParser()
    for at in range(0, len(sent), cut_bytes):
        parser.feed(sent[at : at + cut_bytes])
    return parser.requests, parser.fault


cuts = pytest.mark.parametrize("cut_bytes", [pytest.param(1 << 30, id="whole"), pytest.param(1, id="byte by byte"), 5])


@cuts
@pytest.mark.parametrize(
    ("sent", "body"),
    [
        pytest.param(b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="plain"),
        pytest.param(b"3;name=value\r\nabc\r\n0;last\r\n\r\n", b"abc", id="extensions"),
        pytest.param(b'3 ;a="q;\xc3";b\r\nabc\r\n0\r\n\r\n', b"abc", id="quoted extension and white space"),
        pytest.param(b"3  \r\nabc\r\n0\r\n\r\n", b"abc", id="white space after the size"),
        pytest.param(b"1\r\na\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", b"a0123456789", id="trailers"),
        pytest.param(b"0003\r\nabc\r\n000\r\n\r\n", b"abc", id="leading zeros"),
        pytest.param(b"0\r\n\r\n", b"", id="empty"),
    ],
)
def test_chunked_body_is_read_without_extensions_and_trailers(sent: bytes, body: bytes, cut_bytes: int) -> None:
    requests, fault = parse(CHUNKED + sent + GET + b"\r\n", cut_bytes)

    assert fault is None
    assert [request.body for request in requests] == [body, b""]
    assert all(request.complete for request in requests)
    assert requests[1].headers == [("Host", "h")]


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        pytest.param(b"x\r\n", "Invalid character in chunk size", id="no size"),
        pytest.param(b"-3\r\nabc\r\n", "Invalid character in chunk size", id="negative"),
        pytest.param(b"0x3\r\nabc\r\n", "Invalid character in chunk size", id="0x"),
        pytest.param(b"f" * 17 + b"\r\nabc\r\n", "Chunk size overflow", id="17 digits"),
        pytest.param(
            b"3;a\nb\r\nabc\r\n", "Missing expected CR after chunk extension name", id="bare line feed in an extension"
        ),
        pytest.param(b"3\nabc\r\n", "Missing expected CR after chunk size", id="bare line feed after a size"),
        pytest.param(b"3\r\nabcd\r\n", "Expected LF after chunk data", id="too long"),
        pytest.param(
            b"0\r\nA: b\nC: d\r\n\r\n", "Missing expected CR after header value", id="bare line feed in a trailer"
        ),
        pytest.param(
            b"0\r\n" + b"A: %s\r\n" % (b"b" * 8000) * 9,
            "chunk extensions and trailers too large",
            id="72 KB of trailers",
        ),
        pytest.param(
            b"1;%s\r\na\r\n" % (b"b" * 8000) * 9, "chunk extensions and trailers too large", id="72 KB of extensions"
        ),
    ],
)
def test_malformed_chunked_body_is_a_fault_of_its_request(sent: bytes, fault: str) -> None:
    requests, found = parse(CHUNKED + sent)

    assert found == Fault("/v1", fault)
    assert not requests[0].complete


def test_many_small_chunks_are_not_taken_for_extensions() -> None:
    (request,), fault = parse(CHUNKED + b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n")

    assert fault is None
    assert request.body == b"a" * 30_000


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(GET + b"A: " + b"b" * 70_000, id="in a value"),
        pytest.param(GET + b"A: %s\r\n" % (b"b" * 8000) * 9 + b"\r\n", id="complete"),
        pytest.param(b"GET /" + b"a" * 70_000, id="in the target"),
        pytest.param(b"\r\n" * 40_000, id="line ends before a head"),
    ],
)
@pytest.mark.parametrize("cut_bytes", [1 << 30, 1000])
def test_head_over_64_kib_is_a_fault(sent: bytes, cut_bytes: int) -> None:
    requests, fault = parse(sent, cut_bytes)

    assert requests == []
    assert fault is not None
    assert (fault.text, fault.head_too_large) == (TOO_LARGE, True)


def test_large_body_in_one_piece_with_its_head_is_no_large_head() -> None:
    (request,), fault = parse(HEAD + b"Content-Length: 200000\r\n\r\n" + b"b" * 200_000)

    assert fault is None
    assert len(request.body) == 200_000


@cuts
def test_headers_keep_order_repetition_and_bytes_over_127_and_lose_outer_white_space(cut_bytes: int) -> None:
    sent = GET + b"x-a:\r\nX-B: 1 \t\r\nVia:a b\r\nx-b: caf\xe9\r\n\r\n"
    (request,), fault = parse(sent, cut_bytes)

    assert fault is None
    assert (request.method, request.target, request.version) == ("GET", "/next", "HTTP/1.1")
    assert request.headers == [
        ("Host", "h"), ("X-A", ""), ("X-B", "1"), ("X-B", "caf\xe9"), ("Via", "a b"),
    ]  # fmt: skip
    assert request.header("x-b") == "1,caf\xe9"


@cuts
@pytest.mark.parametrize(
    ("head", "text"),
    [
        pytest.param(b"GET /v1 HTTP/1.1\r\nHost: h:8080\r\n", None, id="host and port"),
        pytest.param(b"GET /v1 HTTP/1.1\r\nHost: [::1]\r\n", None, id="address"),
        pytest.param(b"GET /v1 HTTP/1.0\r\n", None, id="HTTP/1.0 without a host"),
        pytest.param(b"GET /v1 HTTP/1.1\r\n", "Missing Host header", id="no host"),
        pytest.param(b"GET /v1 HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "Multiple host headers not allowed", id="twice"),
        pytest.param(b"GET /v1 HTTP/1.1\r\nHost: a,b\r\n", "Invalid Host header", id="two in one"),
        pytest.param(b"GET /v1 HTTP/1.1\r\nHost: a/b\r\n", "Invalid Host header", id="path"),
        pytest.param(HEAD.replace(b"/v1", b"/v1?a" + b"&a" * 999), None, id="1,000 fields of a query"),
        pytest.param(
            HEAD.replace(b"/v1", b"/v1?a" + b"&a" * 1000), "Invalid query string: too many fields", id="too many fields"
        ),
    ],
)
def test_host_and_query_are_checked_as_tornado_checks_them(head: bytes, text: str | None, cut_bytes: int) -> None:
    _, fault = parse(head + b"\r\n", cut_bytes)

    assert (fault.text if fault is not None else None) == text


def test_long_header_names_are_not_kept() -> None:
    def decode_names(count: int) -> None:
        for number in range(count):
            decode_fields([(b"x-%d-" % number + b"a" * 60_000, b"1")])

    decode_names(1)
    assert measure_kept_bytes(lambda: decode_names(20)) < 60_000


def test_dropped_headers_leave_those_that_are_still_needed() -> None:
    (request,), _ = parse(GET + b"X-A: 1\r\nx-b: 2\r\n\r\n")

    request.drop_headers(keep=frozenset({"x-b"}))

    assert (request.headers, request.lines) == ([("X-B", "2")], {})


@cuts
@pytest.mark.parametrize(
    ("headers", "text"),
    [
        pytest.param(
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding can't be present with Content-Length",
            id="length and chunks",
        ),
        pytest.param(
            b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Content-Length can't be present with Transfer-Encoding",
            id="chunks and length",
        ),
        pytest.param(
            b"Transfer-Encoding: gzip, chunked\r\n", "the Transfer-Encoding must be chunked", id="a coding and chunks"
        ),
        pytest.param(
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Invalid `Transfer-Encoding` header value",
            id="chunks twice",
        ),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 5\r\n", "Duplicate Content-Length", id="length twice"),
        pytest.param(b"Content-Length: 5, 5\r\n", "Invalid character in Content-Length", id="list of lengths"),
        pytest.param(b"Content-Length: +5\r\n", "Invalid character in Content-Length", id="signed length"),
        pytest.param(b"A: b\r\n c\r\n", "Unexpected whitespace after header value", id="folded line"),
        pytest.param(b"A : b\r\n", "Invalid header token", id="space before the colon"),
        pytest.param(b"A: b\x00c\r\n", "Invalid header value char", id="control byte"),
        pytest.param(b"A: b\nC: d\r\n", "Missing expected CR after header value", id="bare line feed"),
        pytest.param(b"A: b\rC: d\r\n", "Missing expected LF after header value", id="bare carriage return"),
    ],
)
def test_ambiguous_head_is_a_fault(headers: bytes, text: str, cut_bytes: int) -> None:
    requests, fault = parse(HEAD + headers + b"\r\n", cut_bytes)

    assert fault == Fault("/v1", text)
    assert all(not request.complete for request in requests)


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        pytest.param(
            b"POST /v1 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Fault("/v1", "Transfer-Encoding in an HTTP/1.0 request"),
            id="chunks in HTTP/1.0",
        ),
        pytest.param(
            GET.replace(b"1.1", b"2.0") + b"\r\n", Fault("/next", "the HTTP version must be 1.0 or 1.1"), id="2"
        ),
        pytest.param(b"GET /next\r\n\r\n", Fault("/next", "the HTTP version must be 1.0 or 1.1"), id="no version"),
        pytest.param(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            Fault("*", "the HTTP version must be 1.0 or 1.1"),
            id="HTTP/2 preface",
        ),
        pytest.param(b"\x16\x03\x01", Fault("/", "Invalid method encountered", is_tls=True), id="TLS"),
    ],
)
def test_request_that_is_not_supported_is_a_fault(sent: bytes, fault: Fault) -> None:
    assert parse(sent) == ([], fault)


@pytest.mark.parametrize(("method", "body"), [("BREW", b"abc"), ("get", b"abc"), ("CONNECT", b"")])
def test_request_with_a_method_that_no_handler_has_is_the_last_of_its_connection(method: str, body: bytes) -> None:
    head = f"{method} /v1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n".encode()
    parser = RequestParser()
    parser.feed(head)
    parser.feed(b"abc" + GET + b"\r\n")

    (request,) = parser.requests
    assert parser.fault is None
    assert (request.method, request.body) == (method, body)
    assert not request.keep_alive


@cuts
def test_bytes_after_the_last_request_are_ignored(cut_bytes: int) -> None:
    requests, fault = parse(GET + b"Connection: close\r\n\r\n" + b"no HTTP at all", cut_bytes)

    assert (len(requests), fault) == (1, None)
    assert not requests[0].keep_alive


@cuts
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        pytest.param(b"Content-Length: 3\r\n\r\nabc", b"abc", id="length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc", id="chunks"),
        pytest.param(b"\r\n", b"", id="no body"),
    ],
)
def test_request_for_another_protocol_is_read_as_if_it_did_not_ask(framing: bytes, body: bytes, cut_bytes: int) -> None:
    sent = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + framing + GET + b"\r\n"
    requests, fault = parse(sent * 2, cut_bytes)

    assert fault is None
    assert [(request.target, request.body) for request in requests] == [("/v1", body), ("/next", b"")] * 2
    assert all(request.complete for request in requests)


def test_request_to_upgrade_to_websocket_with_a_body_is_a_fault() -> None:
    requests, fault = parse(GET + b"Connection: Upgrade\r\nUpgrade: WebSocket\r\nContent-Length: 03\r\n\r\nabc")

    assert fault == Fault("/next", "a body in a request to upgrade to WebSocket")
    assert requests == []


@cuts
def test_bytes_after_a_request_to_upgrade_wait_for_its_response(cut_bytes: int) -> None:
    parser = RequestParser()
    sent = GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + GET + b"\r\n"
    for at in range(0, len(sent), cut_bytes):
        parser.feed(sent[at : at + cut_bytes])
    assert len(parser.requests) == 1
    assert parser.held == GET + b"\r\n"

    parser.feed(parser.take_held())

    assert [request.target for request in parser.requests] == ["/next", "/next"]


LARGE = b"".join(b"%07d\n" % number for number in range(40_000))
LARGE_POST = HEAD + b"Content-Length: 320000\r\n"


@pytest.mark.parametrize("cut_bytes", [1 << 30, 150_000, 16 * 1024, 1000, 7])
@pytest.mark.parametrize(
    ("last_header", "rest", "targets"),
    [
        pytest.param(b"", b"", ["/v1"], id="nothing"),
        pytest.param(b"", GET + b"\r\n", ["/v1", "/next"], id="a request"),
        pytest.param(b"", LARGE_POST + b"\r\n" + LARGE + GET + b"\r\n", ["/v1", "/v1", "/next"], id="another one"),
        pytest.param(b"Connection: close\r\n", GET + b"\r\n", ["/v1"], id="a request after the last one"),
        pytest.param(b"Upgrade: h2c\r\nConnection: Upgrade\r\n", GET + b"\r\n", ["/v1", "/next"], id="an upgrade"),
    ],
)
def test_large_body_ends_where_its_length_says(
    cut_bytes: int, last_header: bytes, rest: bytes, targets: list[str]
) -> None:
    requests, fault = parse(LARGE_POST + last_header + b"\r\n" + LARGE + rest, cut_bytes)

    assert fault is None
    assert [request.target for request in requests] == targets
    assert all(request.complete for request in requests)
    assert [request.body for request in requests if request.method == "POST"] == [LARGE] * len(
        [target for target in targets if target == "/v1"]
    )


def test_bytes_after_a_large_body_are_the_next_request() -> None:
    requests, fault = parse(LARGE_POST + b"\r\n" + LARGE + b"smuggled\r\n\r\n", 16 * 1024)

    assert [request.body == LARGE for request in requests] == [True]
    assert fault is not None
    assert fault.target == "/"


def test_large_body_is_incomplete_until_its_last_byte() -> None:
    parser = RequestParser()
    parser.feed(LARGE_POST + b"\r\n")
    parser.feed(LARGE[:-1])

    (request,) = parser.requests
    assert (request.complete, request.missing_bytes) == (False, 1)
    parser.feed(LARGE[-1:])
    assert (request.complete, request.body) == (True, LARGE)
