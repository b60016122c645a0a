"""docs/usage_api.md and docs/bills.md list every parameter, member, basis and finding of the program."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest

from tests.docs.pages import text_of
from tornado_proxy.api.usage_page import make_page
from tornado_proxy.api.usage_query import PARAMETERS, read_usage_request
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.identity import Caller, Project
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.usage import GROUPS, UsageResult, UsageRow
from tornado_proxy.pricing.lists.comparison import Finding


def first_column(page: str, heading: str) -> set[str]:
    """Return the code spans in the first column of the table under a heading."""
    section = text_of(page).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {span for cell in cells for span in re.findall(r"`([^`]+)`", cell)}


def test_usage_api_page_lists_every_parameter() -> None:
    assert first_column("usage_api.md", "Parameters") == set(PARAMETERS)


def test_usage_api_page_lists_every_member_of_a_row() -> None:
    # A row of a request that sets `interval` and every group has all members that any row can have.
    zero = Decimal(0)
    row = UsageRow("2026-11-01T00:00:00.000Z", None, (None,) * len(GROUPS), "openai", None, "x", 0, zero, zero, zero)
    parameters = {"interval": ["day"], "group_by": [",".join(GROUPS)]}
    request = read_usage_request(parameters, "", Caller("p", participant="ada"), Project("p", "first"))

    (members,) = json.loads(make_page(UsageResult([row], 0, zero, 0, 0), request).body)["usage"]

    assert first_column("usage_api.md", "Rows") == set(members)


def test_usage_api_page_lists_intervals_and_groups() -> None:
    section = text_of("usage_api.md").split("## Parameters")[1]
    for name in (*Interval, *GROUPS):
        assert f"`{name}`" in section


def test_usage_api_page_shows_a_response_whose_rows_add_up() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", text_of("usage_api.md"), re.DOTALL)
    response = json.loads(block)

    assert sum(Decimal(row["total"]) for row in response["usage"]) == Decimal(response["summary"]["total"])
    assert list(response) == ["usage", "next_cursor", "summary"]


def test_usage_api_page_states_the_limits_of_the_program() -> None:
    parameters = {"limit": ["10000"]}
    caller, project = Caller("p", participant="ada"), Project("p", "first")
    assert "(1 to 10,000)" in text_of("usage_api.md")
    assert read_usage_request(parameters, "", caller, project).limit == 10_000
    with pytest.raises(BadRequest):
        read_usage_request({"limit": ["10001"]}, "", caller, project)


def test_bills_page_lists_every_basis() -> None:
    assert first_column("bills.md", "How a cost is known") == {basis.value for basis in Basis}


def test_bills_page_lists_every_finding_of_a_comparison() -> None:
    assert first_column("bills.md", "Prices and public lists") == {
        finding.value for finding in Finding if finding is not Finding.SAME
    }
