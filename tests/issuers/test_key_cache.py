"""The life of an issuer's keys, on a virtual clock; the requests to the issuer are counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from tests import virtual_time
from tests.oauth.tokens import AUDIENCE, CLIENT, claims_of, ec_key, key_set, rsa_key, sign
from tornado_proxy.auth.oauth.claims import VerifiedUser
from tornado_proxy.auth.oauth.key_set import VerificationKey
from tornado_proxy.auth.oauth.verifier import AccessTokenVerifier
from tornado_proxy.auth.token_cache import compute_digest
from tornado_proxy.domain.config.oauth import IntrospectionEndpoint, KeySource, OAuthIssuer
from tornado_proxy.domain.errors import IdentityProviderUnavailable, NotAuthenticated
from tornado_proxy.domain.identity import Secret
from tornado_proxy.issuers.client import IssuerClient, make_issuer_clients
from tornado_proxy.issuers.http_fetch import Fetch, Fetched, FetchError
from tornado_proxy.issuers.key_cache import KeyCache, read_jwks_uri

ISSUER = "https://id.example.com"
SOURCE = KeySource(ISSUER, f"{ISSUER}/jwks")


class Issuer:
    """Answers fetches after `delay_s`, with the keys or the error that a test sets."""

    def __init__(self) -> None:
        self.keys: list[Any] = [rsa_key()]
        self.error: FetchError | None = None
        self.max_age_s: int | None = None
        self.delay_s = 0.5
        #: The virtual time of each fetch.
        self.fetched_at: list[float] = []

    async def fetch(self, wanted: Fetch) -> Fetched:
        self.fetched_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return Fetched(json.dumps(key_set(*self.keys)).encode(), self.max_age_s)


async def find(cache: KeyCache, kid: str = "rsa", algorithm: str = "RS256") -> VerificationKey:
    found = cache.find_key(kid, algorithm)
    return found if isinstance(found, VerificationKey) else await found


def play(act: Callable[[Issuer, KeyCache], Awaitable[None]]) -> Issuer:
    """Run `act` on a virtual clock and return the issuer."""
    issuer = Issuer()

    async def run() -> None:
        await act(issuer, KeyCache(SOURCE, issuer.fetch))

    virtual_time.run(run())
    return issuer


def test_requests_that_need_the_keys_at_the_same_time_share_one_fetch() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        keys = await asyncio.gather(*(find(cache) for _ in range(50)))
        assert len({id(key) for key in keys}) == 1
        assert isinstance(cache.find_key("rsa", "RS256"), VerificationKey)

    assert len(play(act).fetched_at) == 1


def test_cancelled_request_does_not_end_the_fetch_of_the_others() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        first, second = (asyncio.ensure_future(find(cache)) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        assert (await second).algorithm == "RS256"

    assert len(play(act).fetched_at) == 1


def test_a_thousand_tokens_with_unknown_keys_cause_one_fetch_a_minute() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        for number in range(1000):
            with pytest.raises(NotAuthenticated):
                await find(cache, f"unknown-{number}")
            await asyncio.sleep(0.29)

    # 290 s: the first fetch, then one in each further minute.
    fetched_at = play(act).fetched_at
    assert len(fetched_at) == 5
    assert all(later - earlier >= 60 for earlier, later in pairwise(fetched_at))


def test_unknown_keys_of_a_minute_do_not_delay_known_ones() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        await find(cache)
        waiting = asyncio.ensure_future(find(cache, "unknown"))
        await asyncio.sleep(0.1)
        assert isinstance(cache.find_key("rsa", "RS256"), VerificationKey)
        with pytest.raises(NotAuthenticated):
            await waiting

    play(act)


def test_new_key_is_found_at_its_first_token_and_an_old_one_ends() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        await find(cache)
        issuer.keys = [ec_key()]
        await find(cache, "ec", "ES256")
        await asyncio.sleep(61)
        with pytest.raises(NotAuthenticated):
            await find(cache)

    play(act)


@pytest.mark.parametrize(
    ("max_age_s", "refreshed_s"), [(None, 300), (0, 300), (299, 300), (1200, 1200), (86_400, 3600)]
)
def test_keys_are_refreshed_in_the_background_at_their_max_age_within_bounds(
    max_age_s: int | None, refreshed_s: float
) -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        issuer.max_age_s = max_age_s
        await find(cache)
        await asyncio.sleep(refreshed_s - 1)
        assert isinstance(cache.find_key("rsa", "RS256"), VerificationKey)
        await asyncio.sleep(2)
        assert isinstance(cache.find_key("rsa", "RS256"), VerificationKey)
        await asyncio.sleep(1)

    assert len(play(act).fetched_at) == 2


def test_keys_that_were_not_used_for_long_are_fetched_before_they_are_used() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        await find(cache)
        issuer.keys = [ec_key()]
        await asyncio.sleep(300 + 3600 + 1)
        with pytest.raises(NotAuthenticated):
            await find(cache)

    play(act)


def test_known_keys_are_used_for_a_day_while_the_issuer_is_down() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        await find(cache)
        issuer.error = FetchError("no response")
        for _ in range(23 * 6):
            await asyncio.sleep(600)
            await find(cache)
        await asyncio.sleep(3601)
        with pytest.raises(IdentityProviderUnavailable):
            await find(cache)
        issuer.error = None
        await asyncio.sleep(30)
        await find(cache)

    play(act)


def test_failed_fetch_is_repeated_after_longer_and_longer_waits_up_to_30_seconds() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        issuer.error, issuer.delay_s = FetchError("no response"), 0
        for _ in range(1000):
            with pytest.raises(IdentityProviderUnavailable) as raised:
                await find(cache)
            assert 1 <= raised.value.retry_after_s <= 30
            await asyncio.sleep(0.1)

    waits = [round(later - earlier) for earlier, later in pairwise(play(act).fetched_at)]
    assert waits == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(("asked_s", "waited_s"), [(7, 7), (3600, 30), (0, 1)])
def test_failed_fetch_is_repeated_after_the_retry_after_of_the_issuer(asked_s: int, waited_s: int) -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        issuer.error, issuer.delay_s = FetchError("status 503", asked_s), 0
        with pytest.raises(IdentityProviderUnavailable) as raised:
            await find(cache)
        assert raised.value.retry_after_s == waited_s
        issuer.error = None
        await asyncio.sleep(waited_s - 0.1)
        with pytest.raises(IdentityProviderUnavailable):
            await find(cache)
        await asyncio.sleep(0.2)
        await find(cache)

    assert len(play(act).fetched_at) == 2


def test_unknown_key_is_unavailable_while_the_issuer_is_down_because_it_can_be_new() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        await find(cache)
        issuer.error = FetchError("no response")
        with pytest.raises(IdentityProviderUnavailable):
            await find(cache, "new")
        assert isinstance(cache.find_key("rsa", "RS256"), VerificationKey)

    play(act)


def test_refused_key_set_leaves_the_known_keys() -> None:
    async def act(issuer: Issuer, cache: KeyCache) -> None:
        await find(cache)
        issuer.keys = [rsa_key(), {**ec_key().jwk, "kid": "rsa"}]
        await asyncio.sleep(301)
        await find(cache)
        await asyncio.sleep(5)
        await find(cache)

    play(act)


def test_discovery_document_names_the_keys() -> None:
    fetched: list[str] = []

    async def fetch(wanted: Fetch) -> Fetched:
        fetched.append(wanted.url)
        document = {"issuer": "https://id.example.com/", "jwks_uri": "https://keys.example.com/1"}
        return Fetched(json.dumps(document if "well-known" in wanted.url else key_set(rsa_key())).encode())

    async def act() -> None:
        await find(KeyCache(KeySource("https://id.example.com/"), fetch))

    virtual_time.run(act())
    assert fetched == ["https://id.example.com/.well-known/openid-configuration", "https://keys.example.com/1"]


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://id.example.com/", "jwks_uri": f"{ISSUER}/jwks"},
        {"issuer": "https://evil.example.com", "jwks_uri": f"{ISSUER}/jwks"},
        {"jwks_uri": f"{ISSUER}/jwks"},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": 7},
        {"issuer": ISSUER, "jwks_uri": "http://id.example.com/jwks"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/keys"},
        {"issuer": ISSUER, "jwks_uri": "https://user:secret@id.example.com/jwks"},
        {"issuer": ISSUER, "jwks_uri": "https://[::1"},
        {"issuer": ISSUER, "jwks_uri": "http://127.0.0.1:9200/jwks"},
        {"issuer": ISSUER, "jwks_uri": "http://localhost/jwks"},
        {"issuer": ISSUER, "jwks_uri": "https://[::1]:8443/jwks"},
    ],
)
def test_discovery_document_of_another_issuer_or_without_a_secure_url_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="discovery document"):
        read_jwks_uri(json.dumps(document).encode(), ISSUER)


# The verifier: its cache of verified tokens depends on the keys.


def test_verified_token_is_cached_until_its_issuer_drops_its_key() -> None:
    issuer = Issuer()
    rules = OAuthIssuer(SOURCE, AUDIENCE, frozenset({CLIENT}))

    async def act() -> None:
        verifier = AccessTokenVerifier([IssuerClient(rules, KeyCache(SOURCE, issuer.fetch), None)])
        token = sign(rsa_key(), claims_of(ISSUER))

        def verify() -> Any:
            return verifier.verify(token, compute_digest(token), datetime.now(UTC))

        first = await verify()
        assert verify() is first
        assert len(verifier) == 1
        issuer.keys = [{**ec_key().jwk, "kid": "rsa"}]
        await asyncio.sleep(301)
        assert isinstance(verify(), VerifiedUser)  # used while the refresh runs
        await asyncio.sleep(60)
        with pytest.raises(NotAuthenticated):
            await verify()

    virtual_time.run(act())


def test_reload_keeps_what_is_known_of_an_issuer_with_the_same_settings() -> None:
    rules = OAuthIssuer(SOURCE, AUDIENCE, frozenset({CLIENT}))
    endpoint = IntrospectionEndpoint(f"{ISSUER}/introspect", "proxy", Secret("s3cret"))
    introspecting = OAuthIssuer(
        KeySource("https://b.example.com"), AUDIENCE, frozenset({CLIENT}), introspection=endpoint
    )
    before = make_issuer_clients([rules, introspecting])

    other_clients = OAuthIssuer(SOURCE, AUDIENCE, frozenset({"other"}))
    other_source = OAuthIssuer(KeySource(ISSUER, f"{ISSUER}/other"), AUDIENCE, frozenset({CLIENT}))
    same, changed, moved = make_issuer_clients([introspecting, other_clients, other_source], before)

    assert same is before[1]
    assert changed.keys is before[0].keys
    assert changed.issuer is other_clients
    assert moved.keys is not before[0].keys
