"""Requests of logins that are passed on to an issuer on a real port, which is well, wrong or down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.oauth.fake_issuer import DISCOVERY_PATH, FakeIssuer, Response, running_fake_issuer
from tornado_proxy.domain.config.oauth import KeySource
from tornado_proxy.domain.errors import IdentityProviderUnavailable, Overloaded
from tornado_proxy.issuers import login_server
from tornado_proxy.issuers.login_server import MAX_IN_FLIGHT, LoginEndpoints, LoginServer, read_endpoints

FORM = {"grant_type": "refresh_token", "refresh_token": "a&b", "token": "t"}


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with running_fake_issuer() as running:
        running.responses[DISCOVERY_PATH] = Response(discovery(running.url))
        yield running


def discovery(url: str, **changes: Any) -> dict[str, Any]:
    return {"issuer": url, "authorization_endpoint": f"{url}/auth", "token_endpoint": f"{url}/token", **changes}


def test_endpoints_are_discovered_once(issuer: FakeIssuer) -> None:
    async def run() -> list[LoginEndpoints]:
        server = LoginServer(KeySource(issuer.url))
        first = await asyncio.gather(*(server.find_endpoints() for _ in range(10)))
        return [*first, await server.find_endpoints()]

    assert asyncio.run(run()) == [LoginEndpoints(f"{issuer.url}/auth", f"{issuer.url}/token")] * 11
    assert issuer.requests == [DISCOVERY_PATH]


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (Response({"access_token": "a"}), 200),
        (Response({"error": "invalid_grant"}, status=400), 400),
        (Response({"error": "invalid_client"}, status=401), 401),
    ],
)
def test_response_of_the_issuer_passes_unchanged(issuer: FakeIssuer, response: Response, status: int) -> None:
    issuer.responses["/token"] = response

    passed = asyncio.run(LoginServer(KeySource(issuer.url)).request_token(FORM))

    assert (passed.status, passed.body) == (status, response.body)
    assert issuer.introspected == [{"grant_type": ["refresh_token"], "refresh_token": ["a&b"], "token": ["t"]}]


@pytest.mark.parametrize(
    ("path", "response"),
    [
        (DISCOVERY_PATH, Response({}, status=500)),
        (DISCOVERY_PATH, Response({}, status=302, headers={"Location": "/token"})),
        (DISCOVERY_PATH, Response(b"<html>")),
        (DISCOVERY_PATH, Response({"issuer": "https://other.example.com"})),
        ("/token", Response({"access_token": "a"}, status=500)),
        ("/token", Response({"access_token": "a"}, status=302, headers={"Location": "/elsewhere"})),
        ("/token", Response(b"<html>an error page with a secret", status=400)),
        ("/token", Response(b'{"access_token": "' + b"x" * 70_000 + b'"}')),
        ("/token", Response(b"x" * 2_000_000)),
    ],
)
def test_any_other_response_is_unavailable_and_does_not_show(issuer: FakeIssuer, path: str, response: Response) -> None:
    issuer.responses[path] = response

    with pytest.raises(IdentityProviderUnavailable, match="so no login is possible") as raised:
        asyncio.run(LoginServer(KeySource(issuer.url)).request_token(FORM))

    assert "secret" not in str(raised.value)
    assert 1 <= raised.value.retry_after_s <= 30
    assert "/elsewhere" not in issuer.requests


def test_issuer_that_is_down_is_not_asked_for_each_login(issuer: FakeIssuer) -> None:
    issuer.responses[DISCOVERY_PATH] = Response({}, status=503)

    async def run() -> None:
        server = LoginServer(KeySource(issuer.url))
        for _ in range(5):
            with pytest.raises(IdentityProviderUnavailable):
                await server.find_endpoints()

    asyncio.run(run())
    assert issuer.requests == [DISCOVERY_PATH]


def test_known_endpoints_are_used_while_the_issuer_is_down(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_server, "REFRESH_S", 0)

    async def run() -> None:
        server = LoginServer(KeySource(issuer.url))
        known = await server.find_endpoints()
        issuer.responses[DISCOVERY_PATH] = Response({}, status=503)
        assert await server.find_endpoints() == known

    asyncio.run(run())
    assert issuer.requests == [DISCOVERY_PATH] * 2


def test_requests_in_flight_are_bounded(issuer: FakeIssuer) -> None:
    issuer.responses["/token"] = Response({"access_token": "a"}, delay_s=0.5)

    async def run() -> list[object]:
        server = LoginServer(KeySource(issuer.url))
        many = [server.request_token(FORM) for _ in range(MAX_IN_FLIGHT + 8)]
        results = list(await asyncio.gather(*many, return_exceptions=True))
        assert (await server.request_token(FORM)).status == 200
        return results

    refused = [result for result in asyncio.run(run()) if isinstance(result, Overloaded)]
    assert len(refused) == 8
    assert issuer.count("/token") <= MAX_IN_FLIGHT + 1


@pytest.mark.parametrize(
    "url",
    ["http://id.example.com/auth", "https://u:p@id.example.com/", "https://x/#f", "https://x/a b", "javascript:x", 7],
)
def test_endpoint_that_is_no_plain_secure_url_is_refused(url: object) -> None:
    document = discovery("https://id.example.com", authorization_endpoint=url)

    with pytest.raises(ValueError, match="authorization_endpoint"):
        read_endpoints(str(document).replace("'", '"').encode(), "https://id.example.com")
