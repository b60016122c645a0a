"""Converts a provider's usage objects to a UsageReport."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tornado_proxy.domain.usage import Basis, Meter, UsageItem, UsageReport
from tornado_proxy.providers.openai.shared.modal_usage import read_modal_usage


def report_usage(
    statements: Iterable[object], *, default_output: Meter = Meter.OUTPUT, model: str | None = None
) -> UsageReport | None:
    """Return a report with one item for each usage object in `statements`; None if it contains no object.

    `default_output`: see read_modal_usage.  Usage that does not add up keeps its items and is unsettled, so that an
    operator checks it.
    """
    stated = [statement for statement in statements if isinstance(statement, dict)]
    if not stated:
        return None
    usages = [read_modal_usage(statement, default_output=default_output) for statement in stated]
    faults = tuple(fault for usage in usages for fault in usage.faults)
    return UsageReport(
        items=tuple(UsageItem(usage.quantities, model=model, context_tokens=usage.context_tokens) for usage in usages),
        basis=Basis.UNSETTLED if faults else Basis.REPORTED,
        raw=msgspec.json.encode(stated[0] if len(stated) == 1 else stated).decode(),
        model=model,
        faults=faults,
    )
