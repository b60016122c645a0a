"""Adds faults to usage reports, and merges those of several responses."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tornado_proxy.domain.usage import Basis, UsageReport

#: Bases from the most to the least certain.
_CERTAINTY = (Basis.FREE, Basis.REPORTED, Basis.INFERRED, Basis.ESTIMATED, Basis.PENDING, Basis.UNSETTLED)


def with_fault(report: UsageReport, fault: str, *, basis: Basis | None = None) -> UsageReport:
    """Return `report` with one more fault; `basis` replaces its basis if given."""
    return replace(report, basis=basis or report.basis, faults=(*report.faults, fault))


def merge_reports(reports: Sequence[UsageReport], *, named_by: int = 0) -> UsageReport:
    """Return one report of several responses: the items of each, and the least certain basis.

    The model and the object are those of the report at index `named_by`.  A single report is returned unchanged.
    """
    if len(reports) == 1:
        return reports[0]
    raws = [report.raw for report in reports if report.raw is not None]
    return replace(
        reports[named_by],
        items=tuple(item for report in reports for item in report.items),
        basis=max((report.basis for report in reports), key=_CERTAINTY.index),
        # Each is JSON text already, so the list is joined without decoding them.
        raw=f"[{','.join(raws)}]" if raws else None,
        objects=tuple(dict.fromkeys(object_id for report in reports for object_id in report.objects)),
        containers=tuple(dict.fromkeys(use for report in reports for use in report.containers)),
        output_bytes=sum(report.output_bytes for report in reports),
        estimate_method=next((report.estimate_method for report in reports if report.estimate_method), None),
        faults=tuple(dict.fromkeys(fault for report in reports for fault in report.faults)),
    )
