"""The rows of a bill: the dearest, all others, changes; figures by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tornado_proxy.dashboard.amounts import show_amount, show_change, show_exact
from tornado_proxy.dashboard.bill.bill import Bill, list_values, make_bill
from tornado_proxy.dashboard.bill.bill_request import read_bill_request
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.errors import NotFound
from tornado_proxy.domain.identity import Project
from tornado_proxy.ledger.reports.ranked_usage import list_group_rows
from tornado_proxy.ledger.reports.ranking import rank_usage
from tornado_proxy.ledger.reports.usage import GroupRow, UsageResult

NOW = datetime(2026, 3, 14, 10, 30, tzinfo=UTC)


def make_row(name: str | None, total: str, start: str | None = None) -> GroupRow:
    return GroupRow(start, None, (name,), 1, Decimal(total), Decimal(0), 0, 0)


def make_result(*rows: GroupRow) -> UsageResult:
    return UsageResult(rows, len(rows), Decimal(0), 0, 0)


def make(current: UsageResult, previous: UsageResult, **parameters: str) -> Bill:
    request = read_bill_request({"group": "model", **parameters}, Viewer(), NOW)
    usage = rank_usage(list_group_rows(current), list_group_rows(previous), request.ranked_query)
    return make_bill(usage, request)


def test_operator_filters_by_the_id_or_name_of_a_project() -> None:
    viewer = Viewer(choices=(Project("p", "first"), Project("q", "second")))

    for wanted in ("q", "second"):
        request = read_bill_request({"project": wanted}, viewer, NOW)
        assert (request.query.which.project_id, request.filters) == ("q", {"project": wanted})
    with pytest.raises(NotFound, match="no project has the id or name 'third'"):
        read_bill_request({"project": "third"}, viewer, NOW)


CURRENT = make_result(make_row("a", "5"), make_row("b", "3"), make_row("c", "2"), make_row(None, "0.000000000001"))
PREVIOUS = make_result(make_row("a", "4.5"), make_row("b", "10"), make_row("gone", "8"))


def show(bill: Bill) -> list[tuple[str | None, str, str]]:
    return [
        (list_values(row, ["model"])[0], show_exact(row.figures.total), show_exact(row.change)) for row in bill.rows
    ]


def test_dearest_groups_come_first_and_all_others_are_one_row() -> None:
    bill = make(CURRENT, PREVIOUS, top="2")

    # c, the request without a model, and the group that is gone.
    assert show(bill) == [("a", "5", "0.5"), ("b", "3", "-7"), ("3 others", "2.000000000001", "-5.999999999999")]
    assert (bill.figures.total, bill.previous) == (Decimal("10.000000000001"), Decimal("22.5"))
    assert bill.change == Decimal("-12.499999999999")


def test_largest_changes_come_first_also_those_of_groups_that_are_gone() -> None:
    bill = make(CURRENT, PREVIOUS, top="2", sort="change")

    assert show(bill) == [("gone", "0", "-8"), ("b", "3", "-7"), ("3 others", "7.000000000001", "2.500000000001")]


def test_bill_by_day_ranks_groups_over_all_days() -> None:
    days = make_result(
        make_row("a", "1", "2026-03-13T00:00:00.000Z"),
        make_row("b", "9", "2026-03-13T00:00:00.000Z"),
        make_row("a", "20", "2026-03-14T00:00:00.000Z"),
    )

    bill = make(days, PREVIOUS, subgroup="day", top="1")

    rows = [(*list_values(row, bill.request.groups), show_exact(row.figures.total)) for row in bill.rows]
    assert rows == [
        ("a", "2026-03-14T00:00:00.000Z", "20"),
        ("a", "2026-03-13T00:00:00.000Z", "1"),
        ("1 other", "2026-03-13T00:00:00.000Z", "9"),
    ]
    assert [row.previous for row in bill.rows] == [None, None, None]


def test_bill_by_hour_shows_the_latest_hours_whose_rows_have_room_and_links_to_earlier_ones() -> None:
    hours = [f"2026-03-{day:02}T{hour:02}:00:00.000Z" for day in (12, 13) for hour in range(24)]
    rows = make_result(*(make_row(name, "1", hour) for hour in hours for name in "abcdefghijklmnopqrstuvwxyz"))

    first = make(rows, PREVIOUS, subgroup="hour")
    second = make(rows, PREVIOUS, subgroup="hour", before=str(first.older))
    last = make(rows, PREVIOUS, subgroup="hour", before=str(second.older))

    # 20 models and 6 others in an hour, and 23 hours on a page.
    assert [len(bill.rows) for bill in (first, second, last)] == [23 * 21, 23 * 21, 2 * 21]
    assert [bill.rows[0].start for bill in (first, second, last)] == [hours[-1], hours[-24], hours[1]]
    assert [bill.older for bill in (first, second, last)] == [hours[-23], hours[2], None]
    assert {bill.figures.total for bill in (first, second, last)} == {Decimal(48 * 26)}
    assert {list_values(row, ["model"])[0]: show_exact(row.figures.total) for row in last.rows}["6 others"] == "6"


def test_url_of_a_bill_states_all_of_it() -> None:
    given = {"range": "30d", "group": "day", "subgroup": "label.team", "top": "7", "sort": "change", "room": "lab"}

    assert read_bill_request(given, Viewer(), NOW).parameters == given


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("2E-7", "0.0000002"), ("1234567.5", "1,234,567.50"), ("0E-12", "0"), ("-3", "-3.00"), ("0.10", "0.10")],
)
def test_amount_is_exact_and_has_no_exponent(amount: str, shown: str) -> None:
    assert show_amount(Decimal(amount)) == shown


def test_change_has_a_sign() -> None:
    assert [show_change(Decimal(text)) for text in ("2E-7", "-1", "0")] == ["+0.0000002", "\u22121.00", "0"]
