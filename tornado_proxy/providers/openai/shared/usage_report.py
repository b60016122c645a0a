"""From a provider's usage objects to a UsageReport."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tornado_proxy.domain.usage import Basis, Meter, UsageItem, UsageReport
from tornado_proxy.providers.openai.shared.modal_usage import read_usage


def report_usage(
    usage: Iterable[object], *, unnamed_output: Meter = Meter.OUTPUT, model: str | None = None
) -> UsageReport | None:
    """A report of usage objects, each priced once; None where there is none.

    A statement that does not add up is kept with its faults, and is not settled: somebody must look at it.
    """
    stated = [one for one in usage if isinstance(one, dict)]
    if not stated:
        return None
    read = [read_usage(one, unnamed_output=unnamed_output) for one in stated]
    faults = tuple(fault for one in read for fault in one.faults)
    return UsageReport(
        items=tuple(UsageItem(one.quantities, model=model, context_tokens=one.context_tokens) for one in read),
        basis=Basis.UNSETTLED if faults else Basis.REPORTED,
        raw=msgspec.json.encode(stated[0] if len(stated) == 1 else stated).decode(),
        model=model,
        faults=faults,
    )


def decode_object(data: bytes) -> dict[str, object] | None:
    """`data` as a JSON object, None for anything else."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None
