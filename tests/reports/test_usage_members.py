"""Records and sums as JSON members."""

from __future__ import annotations

from decimal import Decimal

from tests.ledger.sample_records import make_intent, make_record
from tests.reports.rated_records import row_of
from tornado_proxy.ledger.reports.records_query import UsageSum
from tornado_proxy.reports.usage_members import SUM_COLUMNS, record_members, sum_members


def test_json_text_of_a_record_is_parsed_and_line_items_are_reduced() -> None:
    members = record_members(row_of(make_record(make_intent("req_1"))))

    assert members["usage"] == {"prompt_tokens": 1000, "completion_tokens": 100}
    items = members["line_items"]
    assert isinstance(items, list)
    assert [list(item) for item in items] == [["type", "quantity", "unit", "unit_price", "amount", "model"]] * 3
    assert (members["request_id"], members["total"]) == ("req_1", "0.002362500000")


def test_missing_json_text_is_none() -> None:
    missing = dict.fromkeys(("usage", "line_items", "provider_key_ids", "labels"))

    assert record_members(missing) == missing


def test_amounts_of_a_sum_are_plain_decimals() -> None:
    members = sum_members(UsageSum(("a",), 3, Decimal("1E-7"), Decimal(0), Decimal("1E-7"), 1, 2))

    assert tuple(members) == SUM_COLUMNS
    assert members == {
        "requests": 3,
        "subtotal": "0.0000001",
        "surcharge": "0",
        "total": "0.0000001",
        "unsettled": 1,
        "pending": 2,
    }
