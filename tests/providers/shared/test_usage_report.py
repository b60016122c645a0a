"""Faults of reports, and one report of several responses."""

from __future__ import annotations

from decimal import Decimal

from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.shared.usage_report import merge_reports, with_fault

REPORTED = UsageReport(
    (UsageItem((Quantity(Meter.INPUT, Decimal(3)),)),),
    Basis.REPORTED,
    raw='{"n":3}',
    model="a",
    object_id="first",
    objects=("container_1",),
    faults=("x",),
)
ESTIMATED = UsageReport(
    (UsageItem((Quantity(Meter.OUTPUT, Decimal(5)),)),),
    Basis.ESTIMATED,
    model="b",
    object_id="second",
    objects=("container_1", "container_2"),
    estimate_method="m",
    faults=("x", "y"),
    output_bytes=20,
)


def test_a_fault_is_added_and_the_basis_replaced_only_if_given() -> None:
    report = UsageReport(basis=Basis.ESTIMATED, faults=("first",))

    assert with_fault(report, "second").faults == ("first", "second")
    assert with_fault(report, "second").basis is Basis.ESTIMATED
    assert with_fault(report, "second", basis=Basis.UNSETTLED).basis is Basis.UNSETTLED


def test_merged_report_has_the_items_of_each_and_the_least_certain_basis() -> None:
    merged = merge_reports([REPORTED, ESTIMATED])

    assert merged.items == (*REPORTED.items, *ESTIMATED.items)
    assert merged.basis is Basis.ESTIMATED
    assert (merged.raw, merged.estimate_method, merged.output_bytes) == ('[{"n":3}]', "m", 20)
    assert (merged.model, merged.object_id) == ("a", "first")
    last = merge_reports([REPORTED, ESTIMATED], named_by=-1)
    assert (last.model, last.object_id, last.items) == ("b", "second", merged.items)
    assert merged.objects == ("container_1", "container_2")
    assert merged.faults == ("x", "y")


def test_merged_report_is_pending_unless_a_part_of_it_is_unsettled() -> None:
    pending, unsettled = UsageReport(basis=Basis.PENDING), UsageReport(basis=Basis.UNSETTLED)

    assert merge_reports([ESTIMATED, pending]).basis is Basis.PENDING
    assert merge_reports([pending, unsettled, REPORTED]).basis is Basis.UNSETTLED
    assert merge_reports([UsageReport(basis=Basis.FREE), REPORTED]).basis is Basis.REPORTED


def test_single_report_is_unchanged() -> None:
    assert merge_reports([ESTIMATED]) is ESTIMATED
