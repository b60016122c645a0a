from __future__ import annotations

import pytest

from tornado_proxy.wire.host_header import is_loopback_name, parse_host


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("127.0.0.1:8081", "127.0.0.1"),
        ("localhost", "localhost"),
        ("LocalHost.:8081", "localhost"),
        ("[::1]:8081", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("Proxy.Example.COM:443", "proxy.example.com"),
        ("proxy:", "proxy"),
        ("", None),
        (":8081", None),
        ("::1", None),
        ("[::1", None),
        ("user@localhost", None),
        ("localhost/path", None),
        ("localhost, evil.example", None),
        ("localhost:port", None),
        ("localhost\u0130", None),
    ],
)
def test_host_header_gives_a_normalized_name_or_nothing(value: str, name: str | None) -> None:
    assert parse_host(value) == name


@pytest.mark.parametrize(
    ("name", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104  compared, not bound
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
    ],
)
def test_loopback_names_are_localhost_and_loopback_addresses(name: str, loopback: bool) -> None:
    assert is_loopback_name(name) is loopback
