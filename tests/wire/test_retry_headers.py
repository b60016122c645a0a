"""A repetition is known by the hash of the client's idempotency key, or by the count of its SDK."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import NO_RETRY_FACTS
from tornado_proxy.wire.retry_headers import read_retry_headers

ADA = Caller("p", participant="ada")
KEY = ("Idempotency-Key", "stainless-python-retry-1234")


def index_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    return {name.lower(): [value] for name, value in pairs}


def test_key_of_the_same_caller_has_the_same_hash_and_is_not_in_it() -> None:
    first = read_retry_headers(index_headers([KEY, ("x-stainless-retry-count", "0")]), ADA, "openai")
    second = read_retry_headers(
        index_headers([("idempotency-key", KEY[1]), ("X-Stainless-Retry-Count", "1")]), ADA, "openai"
    )

    assert first.idempotency_hash == second.idempotency_hash
    assert (first.count, second.count) == (None, "1")
    assert len(str(first.idempotency_hash)) == 32
    assert "1234" not in str(first.idempotency_hash)


@pytest.mark.parametrize(
    ("caller", "provider"),
    [
        (Caller("p", participant="bob"), "openai"),
        (Caller("q", participant="ada"), "openai"),
        (Caller("p", user="ada"), "openai"),
        (ADA, "anthropic"),
    ],
)
def test_another_caller_s_same_key_has_another_hash(caller: Caller, provider: str) -> None:
    own, other = (
        read_retry_headers(index_headers([KEY]), ADA, "openai"),
        read_retry_headers(index_headers([KEY]), caller, provider),
    )

    assert own.idempotency_hash != other.idempotency_hash


@pytest.mark.parametrize("count", ["", "0", "00", "-1", "one", "1e9", "1000", "\u0661"])
def test_count_that_is_no_retry_is_not_recorded(count: str) -> None:
    assert read_retry_headers(index_headers([("x-stainless-retry-count", count)]), ADA, "openai").count is None


def test_request_without_the_headers_states_nothing() -> None:
    assert read_retry_headers(index_headers([("content-type", "application/json")]), ADA, "openai") is NO_RETRY_FACTS


@pytest.mark.parametrize("key", ["", "   ", "k" * 256])
def test_key_without_a_usable_length_has_no_hash(key: str) -> None:
    assert read_retry_headers(index_headers([("idempotency-key", key)]), ADA, "openai").idempotency_hash is None
