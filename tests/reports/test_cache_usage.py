from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.reports.rated_records import price_book
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.reports.cache_usage import COLUMNS, CacheSum, sum_cache_usage

#: USD per million tokens: 1.25 plain, 0.125 read, 1.5625 written for five minutes, 2.5 for an hour.
PRICES = """\
provider: openai
service_tiers: {default: standard}
models:
  gpt-5.4:
    status: active
    endpoints: [/v1/chat/completions]
    rates:
      - when: {service_tier: standard}
        unit: per_million_tokens
        prices:
          input_tokens: "1.25"
          cached_input_tokens: "0.125"
          cache_write_5m_tokens: "1.5625"
          cache_write_1h_tokens: "2.5"
          output_tokens: "10"
        source: https://prices.example/gpt
        checked: 2026-02-01
"""
UNIT_PRICES = {
    "input_tokens": Decimal("1.25"),
    "cached_input_tokens": Decimal("0.125"),
    "cache_write_5m_tokens": Decimal("1.5625"),
    "cache_write_1h_tokens": Decimal("2.5"),
    "output_tokens": Decimal(10),
}
START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
MUCH_LATER = START + timedelta(days=2)
PLAIN, READ, WRITE_5M, WRITE_1H = list(UNIT_PRICES)[:4]


def record(
    seconds: int,
    tokens: dict[str, int],
    *,
    session: str | None = "s",
    agent: str | None = None,
    model: str = "gpt-5.4",
    endpoint: str = "/v1/chat/completions",
) -> dict[str, object]:
    """Return the record of a request that began `seconds` after START and took one second."""
    began_at = START + timedelta(seconds=seconds)
    items = [
        {
            "type": name,
            "quantity": str(count),
            "unit": "per_million_tokens",
            "unit_price": str(UNIT_PRICES[name]),
            "amount": str(count * UNIT_PRICES[name] / 1_000_000),
            "model": model,
            "price_hash": None,
        }
        for name, count in tokens.items()
    ]
    return {
        **dict.fromkeys(COLUMNS),
        **{"project_id": "p", "participant": "ada", "provider": "openai", "endpoint": endpoint, "model": model},
        **{"agent_session": session, "agent": agent, "line_items": json.dumps(items)},
        "started_at": format_time(began_at),
        "ended_at": format_time(began_at + timedelta(seconds=1)),
    }


def report(*records: dict[str, object], now: datetime = MUCH_LATER) -> dict[tuple[str | None, ...], CacheSum]:
    return dict(sum_cache_usage(records, price_book(PRICES), now))


def only(*records: dict[str, object], now: datetime = MUCH_LATER) -> CacheSum:
    (total,) = report(*records, now=now).values()
    return total


def test_share_savings_and_unread_writes_of_a_session() -> None:
    total = only(
        record(0, {PLAIN: 100, WRITE_5M: 1000, "output_tokens": 7}),
        record(60, {PLAIN: 50, READ: 1000, WRITE_5M: 500}),
        # Ten minutes later nothing is cached any more: the 500 tokens were never read.
        record(600, {WRITE_5M: 1600}),
    )

    # Read: 1000 x (1.25 - 0.125) = 0.001125.  Written: 3100 x (1.25 - 1.5625) = -0.00096875, a million each.
    assert total.members() == {
        "requests": 3,
        "input_tokens": "4250",
        "read_tokens": "1000",
        "read_share": "0.2353",
        "written_tokens": "3100",
        "unread_tokens": "2100",
        "saved_usd": "0.000156250000",
        "unpriced_tokens": "0",
    }


@pytest.mark.parametrize(
    ("later", "unread"),
    [
        pytest.param([(300, {READ: 1000})], 0, id="read at the end of its life"),
        pytest.param([(302, {READ: 1000})], 1000, id="read too late: another prompt wrote that"),
        pytest.param([(60, {READ: 400})], 600, id="read in part"),
        pytest.param([(60, {READ: 400}), (350, {READ: 1000})], 0, id="its life begins again with each use"),
        pytest.param([(60, {PLAIN: 2000})], 1000, id="not read"),
        pytest.param([(60, {READ: 5000})], 0, id="more was read than written"),
    ],
)
def test_write_is_unread_unless_a_later_request_reads_it_in_its_life(
    later: list[tuple[int, dict[str, int]]], unread: int
) -> None:
    total = only(record(0, {WRITE_5M: 1000}), *(record(seconds, tokens) for seconds, tokens in later))

    assert total.unread == unread


def test_start_that_was_read_says_nothing_of_what_was_written_behind_it() -> None:
    total = only(record(0, {READ: 2000, WRITE_5M: 300}), record(10, {READ: 2000}))

    assert total.unread == 300


def test_lives_of_one_request_differ() -> None:
    total = only(record(0, {WRITE_1H: 800, WRITE_5M: 200}), record(1000, {READ: 800}))

    assert total.unread == 200


def test_write_that_still_lives_is_not_unread_yet() -> None:
    assert only(record(0, {WRITE_5M: 1000}), now=START + timedelta(seconds=200)).unread == 0


def test_other_sessions_and_agents_read_nothing_of_it() -> None:
    sums = report(
        record(0, {WRITE_5M: 1000}),
        record(10, {READ: 1000}, session="other"),
        record(20, {READ: 1000}, agent="sub"),
    )

    assert sums["s", None, "gpt-5.4"].unread == 1000
    assert sums["other", None, "gpt-5.4"].read_share == 1
    assert sums["s", "sub", "gpt-5.4"].read == 1000


def test_batch_has_no_unread_writes() -> None:
    assert only(record(0, {WRITE_5M: 1000}, endpoint="/v1/messages/batches")).unread == 0


def test_tokens_of_a_model_without_a_price_are_counted_apart() -> None:
    total = only(record(0, {READ: 1000}, model="unknown"))

    assert (total.unpriced, total.saved) == (1000, 0)


def test_record_without_input_is_in_no_group() -> None:
    assert report(record(0, {"output_tokens": 5})) == {}
