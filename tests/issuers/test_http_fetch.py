"""Requests to identity providers, to a real server that misbehaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.oauth.fake_issuer import FakeIssuer, Response, running_fake_issuer
from tornado_proxy.issuers import http_fetch
from tornado_proxy.issuers.http_fetch import Fetch, Fetched, FetchError, fetch


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    with running_fake_issuer() as running:
        yield running


def get(issuer: FakeIssuer, content: Any = b"{}", **how: Any) -> Fetched:
    issuer.responses["/x"] = Response(content, **how)
    return asyncio.run(fetch(Fetch(issuer.url + "/x")))


@pytest.mark.parametrize(
    ("cache_control", "max_age_s"),
    [
        ("public, max-age=600, must-revalidate", 600),
        ('Max-Age="60"', 60),
        ("no-store", None),
        ("max-age=", None),
        ("max-age=-1", None),
        ("max-age=1e3", None),
        ("max-age=99999999999999999999", None),
    ],
)
def test_response_has_its_body_and_max_age(issuer: FakeIssuer, cache_control: str, max_age_s: int | None) -> None:
    assert get(issuer, b"[1]", headers={"Cache-Control": cache_control}) == Fetched(b"[1]", max_age_s)


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 400, 404, 500, 503])
def test_only_status_200_counts_and_no_redirect_is_followed(issuer: FakeIssuer, status: int) -> None:
    before = len(issuer.requests)

    with pytest.raises(FetchError, match=r"status|response"):
        get(issuer, b"" if status == 204 else b"{}", status=status, headers={"Location": "/jwks"})

    assert issuer.requests[before:] == ["/x"]


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0", 0), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("x", None)]
)
def test_retry_after_of_a_failure_is_read(issuer: FakeIssuer, header: str, seconds: int | None) -> None:
    with pytest.raises(FetchError) as raised:
        get(issuer, status=503, headers={"Retry-After": header})

    assert raised.value.retry_after_s == seconds


def test_body_over_one_mebibyte_is_refused(issuer: FakeIssuer) -> None:
    assert len(get(issuer, b" " * 1024 * 1024).body) == 1024 * 1024
    with pytest.raises(FetchError, match="no response"):
        get(issuer, b" " * (1024 * 1024 + 1))


def test_slow_response_times_out(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_fetch, "TIMEOUT_S", 0.2)

    with pytest.raises(FetchError, match=r"^no response within 0\.2 s$"):
        get(issuer, delay_s=0.5)
    gc.collect()  # a connection that is left open warns, which fails the test


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com/jwks",
        "http://10.0.0.1/jwks",
        "http://127.0.0.1.example.com/jwks",
        "file:///etc/passwd",
        "ftp://127.0.0.1/jwks",
        "http://user:secret@127.0.0.1/jwks",
        "https://",
        "https://[::1",
        "jwks",
        "",
    ],
)
def test_insecure_url_is_never_requested(url: str) -> None:
    with pytest.raises(FetchError, match="must be https"):
        asyncio.run(fetch(Fetch(url)))


def test_unreachable_issuer_is_a_fetch_error() -> None:
    with running_fake_issuer() as gone:
        url = gone.url

    with pytest.raises(FetchError, match="no response"):
        asyncio.run(fetch(Fetch(url + "/jwks")))
