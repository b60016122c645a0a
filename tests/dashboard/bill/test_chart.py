"""The series of the time chart: the dearest groups, all others, zeros; figures by hand.  The files of uPlot."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.dashboard.bill.test_bill import make_result, make_row
from tests.harness import ROOT
from tornado_proxy.dashboard.bill.bill_request import BillRequest, read_bill_request
from tornado_proxy.dashboard.bill.chart import (
    MAX_SERIES,
    Chart,
    ChosenSeries,
    choose_series,
    make_chart,
    make_chart_query,
    make_series_query,
)
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.ranked_usage import list_group_rows
from tornado_proxy.ledger.reports.ranking import rank_rows
from tornado_proxy.ledger.reports.usage import UsageResult

NOW = datetime(2026, 3, 14, 10, 30, tzinfo=UTC)
STATIC = ROOT / "tornado_proxy" / "dashboard" / "static"


def make(result: UsageResult, **parameters: str) -> Chart | None:
    request = read_bill_request({"group": "model", **parameters}, Viewer(), NOW)
    return make_chart(result, request, NOW, choose(result, request), {"m0": "Zero"})


def choose(result: UsageResult, request: BillRequest) -> ChosenSeries:
    query = make_series_query(request) or request.ranked_query
    return choose_series(rank_rows(list_group_rows(result), (), query))


def test_chart_has_a_series_for_each_of_the_dearest_groups_and_zeros_between() -> None:
    rows = [make_row(f"m{number}", f"{number + 1}", "2026-03-13T00:00:00.000Z") for number in range(MAX_SERIES + 2)]
    rows.append(make_row("m0", "100", "2026-03-10T00:00:00.000Z"))

    chart = make(make_result(*rows))

    assert chart is not None
    assert [start[:10] for start in chart.starts] == [f"2026-03-{day:02}" for day in range(8, 15)]
    assert [series.name for series in chart.series] == ["Zero", "m6", "m5", "m4", "m3", "2 others"]
    assert [str(amount) for amount in chart.series[0].amounts] == ["0", "0", "100", "0", "0", "1", "0"]
    assert sum(chart.series[-1].amounts) == 2 + 3  # m1 and m2
    assert chart.rows[2] == ("2026-03-10", ["100.00", "0", "0", "0", "0", "0"])


@pytest.mark.parametrize(
    ("parameters", "interval", "groups"),
    [
        ({"range": "today"}, Interval.HOUR, ("model",)),
        ({"range": "30d", "group": "day", "subgroup": "room"}, Interval.DAY, ("room",)),
        ({"range": "month", "group": "day"}, Interval.DAY, ()),
        ({"start": "2024-01-01"}, Interval.MONTH, ("model",)),
    ],
)
def test_interval_depends_on_the_length_of_the_span(
    parameters: dict[str, str], interval: Interval, groups: tuple[str, ...]
) -> None:
    request = read_bill_request({"group": "model", **parameters}, Viewer(), NOW)
    query = make_chart_query(request, choose(make_result(make_row("a" if groups else None, "1")), request))

    assert (query.interval, query.group_by) == (interval, groups)
    assert query.told_apart == (("a",) if groups else ())


def test_amounts_of_the_script_are_exact() -> None:
    tiny = make_row("a", "0.000000000001", "2026-03-14T09:00:00.000Z")

    chart = make(make_result(tiny), range="today")

    assert chart is not None
    assert '"amounts": ["0", "0", "0", "0", "0", "0", "0", "0", "0", "0.000000000001", "0"]' in chart.document
    assert sum(chart.series[0].amounts) == Decimal("1E-12")


@pytest.mark.parametrize("parameters", [{"start": "1900-01-01"}, {"start": "2026-03-14T10:00:00Z"}, {}])
def test_chart_of_too_many_points_or_of_one_or_of_nothing_is_not_drawn(parameters: dict[str, str]) -> None:
    rows = [make_row("a", "1", "2026-03-14T10:00:00.000Z")] if parameters else []

    assert make(make_result(*rows), **parameters) is None


@pytest.mark.parametrize("name", ["uPlot.iife.min.js", "uPlot.min.css"])
def test_file_of_uplot_is_the_one_that_its_head_names(name: str) -> None:
    head, _, rest = (STATIC / name).read_bytes().partition(b"\n")
    stated = re.search(rb"uplot 1\.6\.32, file dist/([\w.]+), sha256 of the rest: (\w{64})", head)

    assert stated is not None
    assert (stated[1].decode(), stated[2].decode()) == (name, hashlib.sha256(rest).hexdigest())
    assert "MIT License" in (STATIC / "uPlot.LICENSE").read_text("utf-8")
