"""Pages of usage: never cut silently."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tornado_proxy.api.usage_page import make_page
from tornado_proxy.api.usage_query import UsageRequest, read_usage_request
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.identity import Caller, Project
from tornado_proxy.ledger.reports.usage import UsageResult, UsageRow


def rows(count: int) -> UsageResult:
    amount = Decimal("0.1")
    listed = [
        UsageRow(None, None, (f"room-{n:06}",), "openai", "gpt-5.4", "input_tokens", 1, Decimal(2), Decimal(0), amount)
        for n in range(count)
    ]
    return UsageResult(listed, count, amount * count, 0, 0)


def request(**given: str) -> UsageRequest:
    arguments = {name: [value] for name, value in {"group_by": "room", **given}.items()}
    return read_usage_request(arguments, "", Caller("p", participant="ada"), Project("p", "first"))


def test_more_than_ten_thousand_rows_need_pages() -> None:
    assert len(json.loads(make_page(rows(10_000), request()).body)["usage"]) == 10_000
    with pytest.raises(BadRequest, match="10001 rows are too many"):
        make_page(rows(10_001), request())
    assert len(json.loads(make_page(rows(10_001), request(limit="10000")).body)["usage"]) == 10_000


def test_pages_have_no_gap_when_rows_are_added_meanwhile() -> None:
    first = make_page(rows(5), request(limit="2"))
    assert first.next_cursor is not None

    # Two more rooms sort behind the first page before the next page is read.
    grown = rows(7)
    second = make_page(grown, request(limit="4", cursor=first.next_cursor))

    seen = [json.loads(page.body)["usage"] for page in (first, second)]
    assert [[row["room"] for row in page] for page in seen] == [
        ["room-000000", "room-000001"],
        ["room-000002", "room-000003", "room-000004", "room-000005"],
    ]
    assert json.loads(second.body)["summary"]["total"] == "0.7"


def test_last_page_has_no_cursor() -> None:
    page = make_page(rows(2), request(limit="2"))

    assert page.next_cursor is None
    assert json.loads(page.body)["next_cursor"] is None


def test_csv_page_has_the_same_rows() -> None:
    page = make_page(rows(3), request(limit="2", format="csv"))

    assert page.next_cursor is not None
    assert page.body.decode().splitlines() == [
        "room,provider,model,type,requests,quantity,unpriced_quantity,total",
        "room-000000,openai,gpt-5.4,input_tokens,1,2,0,0.1",
        "room-000001,openai,gpt-5.4,input_tokens,1,2,0,0.1",
    ]
