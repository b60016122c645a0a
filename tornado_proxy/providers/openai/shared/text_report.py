"""From the text usage of an answer to a UsageReport, stated or estimated: chat, responses and embeddings alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.openai.shared.text_usage import read_text_usage
from tornado_proxy.providers.shared import token_estimate

#: A request's word that leaves the tier to the provider.
_AUTO = "auto"


def report_text(facts: RequestFacts, body: Mapping[str, Any]) -> UsageReport | None:
    """The report of an object with `usage`, `model`, `service_tier` and `id`; None where it has no usage.

    What the request alone tells (`facts.inferred`) is charged with it, and the basis says so.
    """
    usage = body.get("usage")
    if not isinstance(usage, dict) or not usage:
        return None
    read = read_text_usage(usage)
    model = word(body, "model")
    basis = Basis.INFERRED if facts.inferred else Basis.REPORTED
    return UsageReport(
        items=(
            UsageItem(
                (*read.quantities, *facts.inferred),
                model=model,
                terms=Terms(service_tier=word(body, "service_tier")),
                context_tokens=read.context_tokens,
            ),
        ),
        basis=Basis.UNSETTLED if read.faults else basis,
        raw=msgspec.json.encode(usage).decode(),
        model=model,
        object_id=word(body, "id"),
        faults=read.faults,
    )


def estimate_text(facts: RequestFacts, text_bytes: int, answer: Mapping[str, Any] | None = None) -> UsageReport:
    """What an answer without usage may have used: input by the request's length, output by the text that was seen.

    `text_bytes` is the length of that text in UTF-8; `answer` holds what is known of the answer's `id`, `model` and
    `service_tier`.  providers/shared/token_estimate.py says how good it is.
    """
    known = answer or {}
    tier = word(known, "service_tier")
    read, written = token_estimate.tokens_of(facts.body_bytes), token_estimate.tokens_of(text_bytes)
    quantities = (Quantity(Meter.INPUT, Decimal(read)), Quantity(Meter.OUTPUT, Decimal(written)))
    reading = UsageItem(
        (*(quantity for quantity in quantities if quantity.amount), *facts.inferred),
        model=word(known, "model"),
        terms=Terms(next((one for one in (tier, facts.terms.service_tier) if one not in (None, _AUTO)), None)),
        context_tokens=read,
    )
    return UsageReport(
        items=(reading,),
        basis=Basis.ESTIMATED,
        model=reading.model,
        object_id=word(known, "id"),
        estimate_method=token_estimate.METHOD,
    )


def with_fault(report: UsageReport, fault: str, *, basis: Basis | None = None) -> UsageReport:
    """`report` with one more fault, and perhaps another basis."""
    return replace(report, basis=basis or report.basis, faults=(*report.faults, fault))


def word(holder: Mapping[str, Any], name: str) -> str | None:
    """A member that is text, None for anything else."""
    value = holder.get(name)
    return value if isinstance(value, str) else None
