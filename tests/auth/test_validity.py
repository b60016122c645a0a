from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tornado_proxy.auth.validity import NOT_BEFORE_LEEWAY, Validity, format_time, read_validity
from tornado_proxy.domain.errors import NotAuthenticated

NOW = datetime(2026, 11, 28, 9, 0, 0, 123_456, tzinfo=UTC)


def test_expired_token_message_names_the_time_and_the_remedy() -> None:
    with pytest.raises(NotAuthenticated) as rejected:
        Validity(None, NOW).check(NOW)

    assert rejected.value.message == "token expired at 2026-11-28T09:00:00Z; request a new one"


def test_early_token_message_names_the_time_and_the_remedy() -> None:
    validity = Validity(NOW, None)

    validity.check(NOW - NOT_BEFORE_LEEWAY)
    with pytest.raises(NotAuthenticated) as rejected:
        validity.check(NOW - NOT_BEFORE_LEEWAY - timedelta(microseconds=1))

    assert rejected.value.message == (
        "token is not valid yet (nbf is 2026-11-28T09:00:00Z); wait, or correct its signer's clock"
    )


def test_token_without_times_is_always_valid() -> None:
    assert read_validity({}) == Validity(None, None)
    Validity(None, None).check(NOW)


def test_times_are_seconds_since_1970() -> None:
    assert read_validity({"nbf": 0, "exp": 1.5}) == Validity(
        datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    )


@pytest.mark.parametrize("value", [None, True, "1795434400", [1]])
def test_time_that_is_not_a_number_is_rejected(value: object) -> None:
    with pytest.raises(NotAuthenticated, match="token nbf must be a number of seconds since 1970"):
        read_validity({"nbf": value})


@pytest.mark.parametrize("value", [1e300, -1e300, float("inf"), float("nan")])
def test_time_out_of_range_is_rejected(value: float) -> None:
    with pytest.raises(NotAuthenticated, match="token exp is out of range"):
        read_validity({"exp": value})


def test_time_is_formatted_as_in_rfc_3339() -> None:
    assert format_time(datetime(1, 2, 3, 4, 5, 6, tzinfo=UTC)) == "0001-02-03T04:05:06Z"
