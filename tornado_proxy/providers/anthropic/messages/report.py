"""Usage reports of messages: reported, free, or estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import NO_TERMS
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.anthropic.messages.usage import STATED_SPEED, RunSpeeds, find_fallback_model, read_items
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.providers.shared.json_values import as_object, as_objects, as_text, read_count

#: A redeemed fallback credit turns cache writes into reads.  Usage does not state how many, so all count as writes.
CREDIT_METHOD = "fallback_credit_upper_bound"

#: Content blocks of tools that run at the provider.
_PROVIDER_TOOLS = frozenset({"server_tool_use", "mcp_tool_use"})

#: The basis of several messages is the first of these that one of them has, else free.
_LEAST_CERTAIN_FIRST = (Basis.UNSETTLED, Basis.ESTIMATED, Basis.REPORTED)


def report_message(
    message: Mapping[str, object], usage: Mapping[str, object], facts: RequestFacts | None = None
) -> UsageReport:
    """Return the report of a complete message.

    A refusal without output is free, although its usage counts tokens.  A `fallback` content block, which marks that
    one model gave way to another, is not output.
    Source: Claude platform release notes of 2026-06-02; "Refusals and fallback".
    """
    fallbacks = _find_fallback_blocks(message)
    served = find_fallback_model(usage) or _read_next_model(fallbacks)
    model = served or as_text(message.get("model"))
    # Stored whole, so that usage that has no price today can be rated later.
    raw = msgspec.json.encode(usage).decode()
    if message.get("stop_reason") == "refusal" and _count_blocks(message) == len(fallbacks):
        return UsageReport(basis=Basis.FREE, raw=raw, model=model, object_id=as_text(message.get("id")))
    faults: list[str] = []
    items = read_items(
        usage,
        model,
        faults,
        fell_back=served is not None,
        looped=_ran_tools(message, usage),
        speeds=STATED_SPEED if facts is None else _read_speeds(facts),
    )
    basis, method = _decide_basis(usage, faults)
    return UsageReport(
        items=items,
        basis=basis,
        raw=raw,
        model=model,
        object_id=as_text(message.get("id")),
        objects=_list_containers(message),
        estimate_method=method,
        faults=tuple(faults),
    )


def estimate_message(
    facts: RequestFacts, message: Mapping[str, object], usage: Mapping[str, object], output_tokens: int
) -> UsageReport:
    """Return the report of a message that broke off.

    Args:
        facts: The facts of the request; the length of its body estimates the input if `usage` is empty.
        message: The members of the message that the response stated.
        usage: The usage that the response stated before it broke off.
        output_tokens: The estimated output.
    """
    served = _read_next_model(_find_fallback_blocks(message))
    model = served or as_text(message.get("model"))
    faults: list[str] = []
    if usage:
        items = read_items(
            {**usage, "output_tokens": output_tokens},
            model,
            faults,
            fell_back=served is not None,
            looped=_ran_tools(message, usage),
            speeds=_read_speeds(facts),
        )
    else:
        items = (_estimate_item(facts, model, output_tokens),)
    return UsageReport(
        items=items,
        basis=Basis.ESTIMATED,
        raw=msgspec.json.encode(usage).decode() if usage else None,
        model=model,
        object_id=as_text(message.get("id")),
        objects=_list_containers(message),
        estimate_method=token_estimate.METHOD,
        faults=tuple(faults),
    )


def combine_reports(reports: Sequence[UsageReport]) -> UsageReport:
    """Return one report of several messages, with the least certain basis of theirs; a single report is unchanged."""
    if len(reports) == 1:
        return reports[0]
    raws = [report.raw for report in reports if report.raw is not None]
    bases = {report.basis for report in reports}
    methods = (report.estimate_method for report in reports if report.estimate_method is not None)
    return UsageReport(
        items=tuple(item for report in reports for item in report.items),
        basis=next((basis for basis in _LEAST_CERTAIN_FIRST if basis in bases), Basis.FREE),
        # Each is JSON text already, so the list is joined without decoding them.
        raw=f"[{','.join(raws)}]" if raws else None,
        model=reports[-1].model if reports else None,
        object_id=reports[-1].object_id if reports else None,
        objects=tuple(dict.fromkeys(object_id for report in reports for object_id in report.objects)),
        estimate_method=next(methods, None),
        faults=tuple(dict.fromkeys(fault for report in reports for fault in report.faults)),
    )


def _decide_basis(usage: Mapping[str, object], faults: list[str]) -> tuple[Basis, str | None]:
    """Return how certain the usage is, and the estimate method if it is an estimate."""
    if faults:
        # Tokens can be missing: the items are recorded, but their cost is not presented as certain.
        return Basis.UNSETTLED, None
    status = as_object(as_object(usage.get("fallback_credit")).get("status"))
    if status.get("type") == "redeemed" and read_count(usage, "cache_creation_input_tokens", faults):
        return Basis.ESTIMATED, CREDIT_METHOD
    return Basis.REPORTED, None


def _estimate_item(facts: RequestFacts, model: str | None, output_tokens: int) -> UsageItem:
    """Return an item whose input is estimated from the length of the request body."""
    input_tokens = token_estimate.estimate_tokens(facts.body_bytes)
    amounts = ((Meter.INPUT, input_tokens), (Meter.OUTPUT, output_tokens))
    return UsageItem(
        tuple(Quantity(meter, Decimal(amount)) for meter, amount in amounts if amount),
        model=model,
        # The requested tier is only a wish; without a response the standard tier is assumed.
        terms=replace(facts.spends[0].terms, service_tier=None) if facts.spends else NO_TERMS,
        context_tokens=input_tokens,
    )


def _read_speeds(facts: RequestFacts) -> RunSpeeds:
    """Return the speeds that a request asks for, by model."""
    own, *others = facts.spends or (None,)
    if own is None:
        return STATED_SPEED
    models = {spend.model: spend.terms.speed for spend in others if spend is not None and Meter.OUTPUT in spend.meters}
    return RunSpeeds(own.model, own.terms.speed, models)


def _ran_tools(message: Mapping[str, object], usage: Mapping[str, object]) -> bool:
    """Return True if tools ran at the provider, each of which makes another prompt of the same request."""
    counts = as_object(usage.get("server_tool_use")).values()
    return any(isinstance(count, int) and count > 0 for count in counts) or any(
        block.get("type") in _PROVIDER_TOOLS for block in as_objects(message.get("content"))
    )


def _count_blocks(message: Mapping[str, object]) -> int:
    content = message.get("content")
    return len(content) if isinstance(content, list) else 0


def _find_fallback_blocks(message: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the content blocks that mark where one model gave way to another."""
    return [block for block in as_objects(message.get("content")) if block.get("type") == "fallback"]


def _read_next_model(fallbacks: Sequence[Mapping[str, object]]) -> str | None:
    """Return the model that took over last."""
    return as_text(as_object(fallbacks[-1].get("to")).get("model")) if fallbacks else None


def _list_containers(message: Mapping[str, object]) -> tuple[str, ...]:
    """Return the id of the container that tools ran in; later requests of the project can refer to it."""
    container_id = as_text(as_object(message.get("container")).get("id"))
    return () if container_id is None else (container_id,)
