"""From what a message says to a UsageReport: reported, free, or estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import NO_TERMS
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.anthropic.messages.usage import count_of, readings_of, served_by_fallback
from tornado_proxy.providers.shared import token_estimate

#: A redeemed fallback credit turns cache writes into reads, and usage does not say how many: they count as written.
CREDIT_METHOD = "fallback_credit_upper_bound"

#: What reports of several messages come to: the first of these that one of them has.
_WORST_FIRST = (Basis.UNSETTLED, Basis.ESTIMATED, Basis.REPORTED)


def report_message(message: Mapping[str, Any], usage: Mapping[str, Any]) -> UsageReport:
    """The report of a whole message.

    A refusal without any output is free, though its usage counts tokens; a mark that one model gave way to another is
    no output.  Source: Claude platform release notes of 2026-06-02; "Refusals and fallback".
    """
    marks = _fallback_marks(message)
    served = served_by_fallback(usage) or (_model_after(marks[-1]) if marks else None)
    model = served or word(message, "model")
    raw = msgspec.json.encode(usage).decode()
    if message.get("stop_reason") == "refusal" and len(_content(message)) == len(marks):
        return UsageReport(basis=Basis.FREE, raw=raw, model=model, object_id=word(message, "id"))
    faults: list[str] = []
    readings = readings_of(usage, model, faults, fell_back=served is not None)
    basis, method = _basis(usage, faults)
    return UsageReport(
        items=readings,
        basis=basis,
        raw=raw,
        model=model,
        object_id=word(message, "id"),
        objects=_created(message),
        estimate_method=method,
        faults=tuple(faults),
    )


def estimate_message(
    facts: RequestFacts, message: Mapping[str, Any], usage: Mapping[str, Any], output_tokens: int
) -> UsageReport:
    """The report of a message that broke off: the input as stated, else by the request's length; the output given."""
    marks = _fallback_marks(message)
    served = _model_after(marks[-1]) if marks else None
    model = served or word(message, "model")
    faults: list[str] = []
    stated = {**usage, "output_tokens": output_tokens}
    readings = (
        readings_of(stated, model, faults, fell_back=served is not None)
        if usage
        else (_estimated_reading(facts, model, output_tokens),)
    )
    return UsageReport(
        items=readings,
        basis=Basis.ESTIMATED,
        raw=msgspec.json.encode(usage).decode() if usage else None,
        model=model,
        object_id=word(message, "id"),
        objects=_created(message),
        estimate_method=token_estimate.METHOD,
        faults=tuple(faults),
    )


def combine(reports: Sequence[UsageReport]) -> UsageReport:
    """One report of several messages; the basis is the least certain of theirs.  One report stays as it is."""
    if len(reports) == 1:
        return reports[0]
    raws = [report.raw for report in reports if report.raw is not None]
    return UsageReport(
        items=tuple(reading for report in reports for reading in report.items),
        basis=next((basis for basis in _WORST_FIRST if any(one.basis is basis for one in reports)), Basis.FREE),
        raw=f"[{','.join(raws)}]" if raws else None,
        model=reports[-1].model if reports else None,
        object_id=reports[-1].object_id if reports else None,
        objects=tuple(dict.fromkeys(created for report in reports for created in report.objects)),
        estimate_method=next((one.estimate_method for one in reports if one.estimate_method is not None), None),
        faults=tuple(dict.fromkeys(fault for report in reports for fault in report.faults)),
    )


def decode_object(data: bytes) -> dict[str, Any]:
    """`data` as a JSON object, empty for anything else."""
    try:
        value = msgspec.json.decode(data) if data else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def word(holder: Mapping[str, Any], name: str) -> str | None:
    """A member that is text, None for anything else."""
    value = holder.get(name)
    return value if isinstance(value, str) else None


def _basis(usage: Mapping[str, Any], faults: list[str]) -> tuple[Basis, str | None]:
    """How sure the cost is, and by which method it is estimated if it is."""
    if faults:
        return Basis.UNSETTLED, None
    credit = usage.get("fallback_credit")
    status = credit.get("status") if isinstance(credit, dict) else None
    redeemed = isinstance(status, dict) and status.get("type") == "redeemed"
    if redeemed and count_of(usage, "cache_creation_input_tokens", faults):
        return Basis.ESTIMATED, CREDIT_METHOD
    return Basis.REPORTED, None


def _estimated_reading(facts: RequestFacts, model: str | None, output_tokens: int) -> UsageItem:
    asked = facts.spends[0] if facts.spends else None
    read = token_estimate.tokens_of(facts.body_bytes)
    counts = ((Meter.INPUT, read), (Meter.OUTPUT, output_tokens))
    return UsageItem(
        tuple(Quantity(meter, Decimal(amount)) for meter, amount in counts if amount),
        model=model,
        terms=replace(asked.terms, service_tier=None) if asked is not None else NO_TERMS,
        context_tokens=read,
    )


def _content(message: Mapping[str, Any]) -> Sequence[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else ()


def _fallback_marks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The content blocks that say where one model gave way to another."""
    return [block for block in _content(message) if isinstance(block, dict) and block.get("type") == "fallback"]


def _model_after(mark: Mapping[str, Any]) -> str | None:
    after = mark.get("to")
    return word(after, "model") if isinstance(after, dict) else None


def _created(message: Mapping[str, Any]) -> tuple[str, ...]:
    """The container that tools ran in, which later requests may refer to."""
    container = message.get("container")
    container_id = word(container, "id") if isinstance(container, dict) else None
    return () if container_id is None else (container_id,)
