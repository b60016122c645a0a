"""Views of usage reports that tests compare."""

from __future__ import annotations

from decimal import Decimal

from tornado_proxy.domain.usage import UsageReport


def amounts(report: UsageReport) -> dict[str, int]:
    """Return the amount of each meter in `report`."""
    return {quantity.meter.value: int(quantity.amount) for item in report.items for quantity in item.quantities}


def undated(lines: list[tuple[str, str, Decimal]]) -> list[tuple[str, str, Decimal]]:
    """Return `lines` with the names of models without their date.

    Expected lines name the priced model, but a response names its snapshot, such as gpt-4o-2024-08-06.
    """
    return sorted((model[:-11] if model[-6:-5] == model[-3:-2] == "-" else model, *rest) for model, *rest in lines)
