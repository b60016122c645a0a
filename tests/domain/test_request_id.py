"""Ids of requests begin with their time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tornado_proxy.domain.request_id import begin_of_ids, new_request_id, read_time

MS = timedelta(milliseconds=1)


def test_ids_are_random_and_differ_across_draws() -> None:
    ids = [new_request_id() for _ in range(1000)]

    assert len(set(ids)) == 1000
    assert {len(request_id) for request_id in ids} == {len("req_") + 32}
    assert all(request_id.startswith("req_") for request_id in ids)


def test_id_tells_its_time() -> None:
    before = datetime.now(UTC)
    request_id = new_request_id()
    after = datetime.now(UTC)

    assert before - MS < read_time(request_id) <= after


def test_time_of_an_id_is_exact() -> None:
    request_id = "req_018f2b6c0a01" + "0" * 20

    at = read_time(request_id)

    assert at == datetime(2024, 4, 29, 19, 54, 11, 841000, UTC)
    assert begin_of_ids(at) <= request_id < begin_of_ids(at + MS)
    assert request_id < begin_of_ids(at.replace(year=2200))  # as many digits


@pytest.mark.parametrize("text", ["req_", "req_018f2b6c0a", "resp_018f2b6c0a010000", "req_time of mine"])
def test_other_ids_have_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_time(text)
