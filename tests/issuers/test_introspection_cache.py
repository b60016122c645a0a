"""Answers about opaque tokens, on a virtual clock; the requests to the issuer are counted."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests import virtual_time
from tests.oauth.tokens import AUDIENCE, CLIENT, SUBJECT
from tornado_proxy.auth.oauth.claims import VerifiedUser
from tornado_proxy.domain.config.oauth import IntrospectionEndpoint, KeySource, OAuthIssuer
from tornado_proxy.domain.errors import IdentityProviderUnavailable, InsufficientScope, NotAuthenticated
from tornado_proxy.domain.identity import Secret
from tornado_proxy.issuers.http_fetch import Fetch, Fetched, FetchError
from tornado_proxy.issuers.introspection_cache import MAX_ANSWERS, IntrospectionCache

ENDPOINT = IntrospectionEndpoint("https://id.example.com/introspect", "pro:xy", Secret("s3/cret"))
ISSUER = OAuthIssuer(KeySource("https://id.example.com"), AUDIENCE, frozenset({CLIENT}), introspection=ENDPOINT)
TOKEN = "opaque"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ACTIVE = {"active": True, "sub": SUBJECT, "client_id": CLIENT, "scope": "llm_proxy", "token_type": "Bearer"}


class Issuer:
    """Answers introspections after `delay_s`."""

    def __init__(self) -> None:
        self.answer: Any = ACTIVE
        self.error: FetchError | None = None
        self.delay_s = 0.5
        self.fetches: list[Fetch] = []
        self.running = self.most_running = 0

    async def fetch(self, wanted: Fetch) -> Fetched:
        self.fetches.append(wanted)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(self.delay_s)
        self.running -= 1
        if self.error is not None:
            raise self.error
        return Fetched(json.dumps(self.answer).encode())


def play(act: Callable[[Issuer, Callable[..., Awaitable[VerifiedUser]]], Awaitable[None]]) -> Issuer:
    issuer = Issuer()

    async def run() -> None:
        cache = IntrospectionCache(ISSUER, ENDPOINT, issuer.fetch)

        async def introspect(token: str = TOKEN, now: datetime = NOW) -> VerifiedUser:
            found = cache.introspect(token, now)
            return found if isinstance(found, VerifiedUser) else await found

        await act(issuer, introspect)

    virtual_time.run(run())
    return issuer


def test_request_carries_the_token_in_its_form_and_our_credentials_encoded() -> None:
    async def act(issuer: Issuer, introspect: Any) -> None:
        assert (await introspect("a+b/c=")).user.subject == SUBJECT

    (sent,) = play(act).fetches
    assert (sent.url, sent.form) == (ENDPOINT.url, "token=a%2Bb%2Fc%3D&token_type_hint=access_token")
    assert sent.headers["Authorization"] == "Basic " + base64.b64encode(b"pro%3Axy:s3%2Fcret").decode()
    assert "cret" not in repr(sent)


def test_active_answer_counts_for_a_minute() -> None:
    async def act(issuer: Issuer, introspect: Any) -> None:
        await introspect()
        issuer.answer = {"active": False}  # revoked
        await asyncio.sleep(59)
        await introspect()
        await asyncio.sleep(2)
        with pytest.raises(NotAuthenticated, match="revoked"):
            await introspect()

    assert len(play(act).fetches) == 2


def test_active_answer_does_not_outlive_its_token() -> None:
    async def act(issuer: Issuer, introspect: Any) -> None:
        issuer.answer = {**ACTIVE, "exp": int(NOW.timestamp()) + 5}
        await introspect()
        with pytest.raises(NotAuthenticated, match="expired"):
            await introspect(now=NOW + timedelta(seconds=36))

    play(act)


@pytest.mark.parametrize(
    ("answer", "error"),
    [({"active": False}, NotAuthenticated), ({**ACTIVE, "scope": "openid"}, InsufficientScope)],
)
def test_refusal_counts_for_ten_seconds(answer: Any, error: type[Exception]) -> None:
    async def act(issuer: Issuer, introspect: Any) -> None:
        issuer.answer = answer
        for _ in range(3):
            with pytest.raises(error):
                await introspect()
        issuer.answer = ACTIVE
        await asyncio.sleep(11)
        await introspect()

    assert len(play(act).fetches) == 2


def test_requests_with_one_token_share_one_introspection() -> None:
    async def act(issuer: Issuer, introspect: Any) -> None:
        await asyncio.gather(*(introspect() for _ in range(50)))

    assert len(play(act).fetches) == 1


@pytest.mark.parametrize("failure", ["no response", "malformed"])
def test_issuer_that_does_not_answer_is_unavailable_and_is_asked_again(
    failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(issuer: Issuer, introspect: Any) -> None:
        issuer.error, issuer.answer = (FetchError("no response") if failure == "no response" else None), {}
        for _ in range(2):
            with pytest.raises(IdentityProviderUnavailable):
                await introspect()
        issuer.error, issuer.answer = None, ACTIVE
        await introspect()

    assert len(play(act).fetches) == 3
    assert [record.message for record in caplog.records] == ["token not introspected"]


def test_introspections_at_the_same_time_and_waiting_ones_are_limited() -> None:
    async def act(issuer: Issuer, introspect: Any) -> None:
        results = await asyncio.gather(*(introspect(f"t{number}") for number in range(1100)), return_exceptions=True)
        assert sum(isinstance(result, VerifiedUser) for result in results) == 1032
        assert sum(isinstance(result, IdentityProviderUnavailable) for result in results) == 68

    assert play(act).most_running == 32


def test_number_of_answers_is_limited() -> None:
    async def act(issuer: Issuer, introspect: Any) -> None:
        issuer.delay_s = 0
        for number in range(MAX_ANSWERS + 1):
            await introspect(f"t{number}")
        await introspect("t1")
        assert len(issuer.fetches) == MAX_ANSWERS + 1
        await introspect("t0")

    assert len(play(act).fetches) == MAX_ANSWERS + 2
