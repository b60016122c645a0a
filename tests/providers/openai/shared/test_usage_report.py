from __future__ import annotations

import json

from tests.providers.openai.reports import amounts
from tornado_proxy.domain.usage import Basis
from tornado_proxy.providers.openai.shared.usage_report import report_usage

USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def test_one_usage_object_is_one_item_and_stored_as_stated() -> None:
    report = report_usage([None, USAGE, "text"], model="gpt-realtime")

    assert report is not None
    assert amounts(report) == {"input_tokens": 3, "output_tokens": 2}
    assert (report.basis, report.model, report.items[0].model) == (Basis.REPORTED, "gpt-realtime", "gpt-realtime")
    assert report.items[0].context_tokens == 3
    assert json.loads(report.raw or "") == USAGE


def test_several_usage_objects_are_several_items_and_stored_as_a_list() -> None:
    report = report_usage([USAGE, USAGE])

    assert report is not None
    assert len(report.items) == 2
    assert json.loads(report.raw or "") == [USAGE, USAGE]


def test_no_usage_object_is_no_report() -> None:
    assert report_usage([None, 5, "text", []]) is None


def test_usage_that_does_not_add_up_is_unsettled() -> None:
    report = report_usage([{"input_tokens": -1}])

    assert report is not None
    assert report.basis is Basis.UNSETTLED
    assert report.faults == ("usage.input_tokens is '-1', not a count",)
