"""Reports the usage of chat completions, responses and embeddings, stated or estimated."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.openai.shared.text_usage import read_text_usage
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.providers.shared.json_values import as_text

#: The `service_tier` that leaves the tier to the provider.  It has no price (OpenAI API reference, `service_tier`).
_AUTO_TIER = "auto"


def report_text(facts: RequestFacts, response: Mapping[str, object]) -> UsageReport | None:
    """Return the report of a response with `usage`, `model`, `service_tier` and `id`; None if it has no usage.

    Quantities that only the request states (`facts.inferred`) are added, and the basis is then INFERRED.
    """
    stated = response.get("usage")
    if not isinstance(stated, dict) or not stated:
        return None
    usage = read_text_usage(stated)
    model = as_text(response.get("model"))
    item = UsageItem(
        (*usage.quantities, *facts.inferred),
        model=model,
        terms=Terms(service_tier=as_text(response.get("service_tier"))),
        context_tokens=usage.context_tokens,
    )
    basis = Basis.INFERRED if facts.inferred else Basis.REPORTED
    return UsageReport(
        items=(item,),
        basis=Basis.UNSETTLED if usage.faults else basis,
        raw=msgspec.json.encode(stated).decode(),
        model=model,
        object_id=as_text(response.get("id")),
        faults=usage.faults,
    )


def estimate_text(facts: RequestFacts, output_bytes: int, response: Mapping[str, object] | None = None) -> UsageReport:
    """Return an estimate for a response without usage: input by the request's length, output by the text's.

    `output_bytes` is the length of the response's text in UTF-8.  `response` holds the members `id`, `model` and
    `service_tier` as far as they are known.  providers/shared/token_estimate.py describes the accuracy.
    """
    known = response or {}
    tiers = (as_text(known.get("service_tier")), facts.terms.service_tier)
    input_tokens = token_estimate.estimate_tokens(facts.body_bytes)
    quantities = (
        Quantity(Meter.INPUT, Decimal(input_tokens)),
        Quantity(Meter.OUTPUT, Decimal(token_estimate.estimate_tokens(output_bytes))),
    )
    item = UsageItem(
        (*(quantity for quantity in quantities if quantity.amount), *facts.inferred),
        model=as_text(known.get("model")),
        terms=Terms(next((tier for tier in tiers if tier not in (None, _AUTO_TIER)), None)),
        context_tokens=input_tokens,
    )
    return UsageReport(
        items=(item,),
        basis=Basis.ESTIMATED,
        model=item.model,
        object_id=as_text(known.get("id")),
        estimate_method=token_estimate.METHOD,
    )
