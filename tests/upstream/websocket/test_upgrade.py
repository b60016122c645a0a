"""The response to an upgrade, in every cut of its bytes, and the request."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.upstream.websocket.upgrade import (
    InvalidUpgrade,
    UpgradeReader,
    UpgradeResponse,
    make_upgrade_request,
)

#: The key and the accept value of RFC 6455 section 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

UPGRADE = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\nX-One: 1\r\nx-one: 2\r\n\r\n"
).encode()

REFUSAL = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nno\r\n3\r\npe!\r\n0\r\n\r\n"
)


def read(parts: Iterable[bytes], *, ends: bool = False) -> UpgradeResponse | None:
    """Return the response in `parts`, with the parts behind it; `ends` closes the connection after them."""
    reader = UpgradeReader(KEY)
    remaining = iter(parts)
    try:
        for part in remaining:
            response = reader.feed(part)
            if response is not None:
                rest = b"".join((response.rest, *remaining))
                return UpgradeResponse(response.status, response.headers, response.body, rest)
        return reader.end() if ends else None
    finally:
        reader.close()


@given(cuts=st.sets(st.integers(0, len(UPGRADE) + 6)))
def test_upgrade_is_read_in_every_cut_and_leaves_the_bytes_behind_it(cuts: set[int]) -> None:
    sent = UPGRADE + b"\x81\x04abcd"
    response = read(sent[start:end] for start, end in pairwise((0, *sorted(cuts), len(sent))) if start < end)

    assert response is not None
    assert (response.status, response.body, response.rest) == (101, b"", b"\x81\x04abcd")
    assert response.headers["x-one"] == "1,2"


@given(cuts=st.sets(st.integers(0, len(REFUSAL))))
def test_refusal_is_read_in_every_cut_after_an_informational_response(cuts: set[int]) -> None:
    response = read(REFUSAL[start:end] for start, end in pairwise((0, *sorted(cuts), len(REFUSAL))) if start < end)

    assert response == UpgradeResponse(429, {"retry-after": "7", "transfer-encoding": "chunked"}, b"nope!")


def test_body_without_a_length_ends_with_the_connection() -> None:
    sent = [b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nno", b"pe"]

    assert read(sent) is None
    assert read(sent, ends=True) == UpgradeResponse(403, {"content-type": "text/plain"}, b"nope")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(b"", "closed before its end", id="nothing"),
        pytest.param(b"HTTP/1.1 101 Switching", "closed before its end", id="half a head"),
        pytest.param(b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\nno", "closed before its end", id="half a body"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", "malformed HTTP", id="another protocol"),
        pytest.param(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", "do not confirm", id="no Connection"),
        pytest.param(UPGRADE.replace(ACCEPT.encode(), b"AAAA"), "do not confirm", id="a wrong accept value"),
        pytest.param(UPGRADE.replace(b"WebSocket\r", b"h2c\r"), "do not confirm", id="another protocol agreed"),
        pytest.param(
            UPGRADE.replace(b"X-One", b"Sec-WebSocket-Extensions"), "do not confirm", id="an extension not offered"
        ),
        pytest.param(b"HTTP/1.1 400 No\r\nX: " + b"a" * 65_536, "its head has more", id="an endless head"),
        pytest.param(b"HTTP/1.1 400 No\r\n\r\n" + b"a" * 1_048_577, "its body has more", id="an endless body"),
    ],
)
def test_response_that_is_not_valid_is_an_error(sent: bytes, reason: str) -> None:
    with pytest.raises(InvalidUpgrade, match=reason):
        read([sent], ends=True)


def test_request_has_the_target_as_it_is_and_the_host_without_its_user() -> None:
    url = "https://user@example.com:8443/v1/realtime?model=a%20b&c=ü"
    request = make_upgrade_request(url, [("X-One", "1")], ("realtime", "b"), KEY)

    assert request.split(b"\r\n") == [
        "GET /v1/realtime?model=a%20b&c=ü HTTP/1.1".encode("latin-1"),
        b"Host: example.com:8443",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
        b"Accept-Encoding: identity",
        b"Sec-WebSocket-Protocol: realtime,b",
        b"X-One: 1",
        b"",
        b"",
    ]


@pytest.mark.parametrize("value", ["a\r\nX-Two: 2", "a\nb", "a\rb"])
def test_request_whose_header_contains_a_line_end_is_not_made(value: str) -> None:
    with pytest.raises(ValueError, match="line end"):
        make_upgrade_request("http://h/", [("X-One", value)], (), KEY)
