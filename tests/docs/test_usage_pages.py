"""docs/usage_api.md and docs/bills.md name what the program knows, each word of it."""

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
    """The words in code type in the first column of the table under a heading."""
    section = text_of(page).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def test_every_parameter_is_on_the_page() -> None:
    assert first_column("usage_api.md", "Parameters") == set(PARAMETERS)


def test_every_member_of_a_row_is_on_the_page() -> None:
    nothing = Decimal(0)
    row = UsageRow(
        "2026-11-01T00:00:00.000Z", None, (None,) * len(GROUPS), "openai", None, "x", 0, nothing, nothing, nothing
    )
    given = {"interval": ["day"], "group_by": [",".join(GROUPS)]}
    asked = read_usage_request(given, "", Caller("p", participant="ada"), Project("p", "first"))

    (members,) = json.loads(make_page(UsageResult([row], 0, nothing, 0, 0), asked).body)["usage"]

    assert first_column("usage_api.md", "Rows") == set(members)


def test_intervals_and_groups_are_on_the_page() -> None:
    section = text_of("usage_api.md").split("## Parameters")[1]
    for word in (*Interval, *GROUPS):
        assert f"`{word}`" in section


def test_what_the_answer_on_the_page_shows_is_what_a_server_answers() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", text_of("usage_api.md"), re.DOTALL)
    shown = json.loads(block)

    assert sum(Decimal(row["total"]) for row in shown["usage"]) == Decimal(shown["summary"]["total"])
    assert list(shown) == ["usage", "next_cursor", "summary"]


def test_the_limits_on_the_page_are_the_program_s() -> None:
    asked = {"limit": ["10000"]}
    caller, project = Caller("p", participant="ada"), Project("p", "first")
    assert "(1 to 10,000)" in text_of("usage_api.md")
    assert read_usage_request(asked, "", caller, project).limit == 10_000
    with pytest.raises(BadRequest):
        read_usage_request({"limit": ["10001"]}, "", caller, project)


def test_every_way_a_cost_is_known_is_on_the_page() -> None:
    assert first_column("bills.md", "How a cost is known") == {basis.value for basis in Basis}


def test_every_finding_of_a_comparison_is_on_the_page() -> None:
    assert first_column("bills.md", "Prices and public lists") == {
        finding.value for finding in Finding if finding is not Finding.SAME
    }
