"""Usage reports of messages: reported, inferred, or estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
from msgspec import structs

from tornado_proxy.domain.request import NO_FACTS, RequestFacts
from tornado_proxy.domain.terms import NO_TERMS
from tornado_proxy.domain.usage import Basis, Meter, UsageItem, UsageReport
from tornado_proxy.providers.anthropic.messages.attempt import read_attempt
from tornado_proxy.providers.anthropic.messages.code_execution import (
    CONTAINER_METHOD,
    container_id_of,
    read_container,
)
from tornado_proxy.providers.anthropic.messages.usage import Findings, read_items
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.providers.shared.json_values import as_text, make_quantities

#: Counts of which usage of a message states one at least.
_COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def report_message(
    message: Mapping[str, object], usage: Mapping[str, object], facts: RequestFacts = NO_FACTS
) -> UsageReport:
    """Return the report of a complete message; `facts` are those of its request.

    A prompt that was declined without output is an item with a refusal.  A `fallback` content block, which marks that
    one model gave way to another, is not output.  The basis is INFERRED if the request decided a lifetime of cache
    writes.
    Source: "Refusals and fallback".
    """
    attempt = read_attempt(message, usage, facts)
    findings = Findings()
    if all(usage.get(name) is None for name in _COUNTS):
        # Usage of another form, such as OpenAI's from a gateway, must not look like a message that cost nothing.
        findings.faults.append("usage states none of the counts of a message")
    items = read_items(usage, attempt, findings)
    containers = read_container(message, facts)
    basis = _decide_basis(findings)
    charges_time = bool(containers) and basis is not Basis.UNSETTLED
    return UsageReport(
        items=items,
        # The container's time is not stated, and it has a price.
        basis=Basis.ESTIMATED if charges_time else basis,
        estimate_method=CONTAINER_METHOD if charges_time else None,
        # Stored whole, so that usage that has no price today can be rated later.
        raw=msgspec.json.encode(usage).decode(),
        model=attempt.model,
        object_id=as_text(message.get("id")),
        names_object=facts.names_response,
        objects=_list_containers(message),
        containers=containers,
        faults=(*findings.faults, *findings.notes, *(use.note for use in containers)),
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
    attempt = read_attempt(message, usage, facts)
    model = attempt.model
    findings = Findings()
    if usage:
        # A message that broke off may have been declined later, but output that has arrived is charged.
        items = read_items({**usage, "output_tokens": output_tokens}, replace(attempt, refusal=None), findings)
    else:
        items = (_estimate_item(facts, model, output_tokens),)
    containers = read_container(message, facts)
    return UsageReport(
        items=items,
        basis=Basis.ESTIMATED,
        raw=msgspec.json.encode(usage).decode() if usage else None,
        model=model,
        object_id=as_text(message.get("id")),
        names_object=facts.names_response,
        objects=_list_containers(message),
        containers=containers,
        estimate_method=token_estimate.METHOD,
        faults=(*findings.faults, *findings.notes, *(use.note for use in containers)),
    )


def _decide_basis(findings: Findings) -> Basis:
    """Return how certain the usage is.

    A redeemed fallback credit does not change it: usage then states the counts that are charged.
    """
    if findings.faults:
        # Tokens can be missing: the items are recorded, but their cost is not presented as certain.
        return Basis.UNSETTLED
    return Basis.INFERRED if findings.notes else Basis.REPORTED


def _estimate_item(facts: RequestFacts, model: str | None, output_tokens: int) -> UsageItem:
    """Return an item whose input is estimated from the length of the request body."""
    input_tokens = token_estimate.estimate_tokens(facts.body_bytes)
    amounts = ((Meter.INPUT, input_tokens), (Meter.OUTPUT, output_tokens))
    return UsageItem(
        make_quantities(amounts),
        model=model,
        # The requested tier is only a wish; without a response the standard tier is assumed.
        terms=structs.replace(facts.spends[0].terms, service_tier=None) if facts.spends else NO_TERMS,
        context_tokens=input_tokens,
    )


def _list_containers(message: Mapping[str, object]) -> tuple[str, ...]:
    """Return the id of the container that tools ran in; later requests of the project can refer to it."""
    container_id = container_id_of(message)
    return () if container_id is None else (container_id,)
